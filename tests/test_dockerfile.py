"""The image, as far as it can be judged without a container runtime: linted, its steps run here.

The steps of the build stage run with their own commands in a folder; what they made is then run as
the final stage says, with its entry point, its health check and its stop signal.
"""

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from msgspec import Struct, structs

from edged import native
from edged.api.admin import AdminConfig
from edged.config import MetricsConfig
from edged.ingest.rtmp import RtmpConfig, RtmpTlsConfig
from edged.irs.service import IrsConfig
from edged.origin.service import OriginConfig
from edged.playback.config import PlaybackConfig, PlaybackTlsConfig
from edged.runtime.listeners import parse_address
from tests.conftest import require, require_found
from tests.e2e.network import take_ports

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text()
FILE = "/etc/edged/edged.toml"  # Where the configuration is mounted.
SIZE_TOLERANCE = 0.1  # Other releases of what edged needs are larger or smaller.


class Stage(Struct):
    """One FROM, with its instructions."""

    base: str
    name: str
    steps: list[tuple[str, str]]

    def all(self, instruction: str) -> list[str]:
        return [value for name, value in self.steps if name == instruction]

    def one(self, instruction: str) -> str:
        (value,) = self.all(instruction)
        return value


def stages() -> list[Stage]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE))
    found: list[Stage] = []
    for line in filter(str.strip, joined.splitlines()):
        name, _, value = line.strip().partition(" ")
        if name == "FROM":
            base, _, alias = value.partition(" AS ")
            found.append(Stage(base, alias, []))
        elif found:
            found[-1].steps.append((name, " ".join(value.split())))
    return found


BUILD, FINAL = stages()


def test_linted() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")  # A package of the tests.
    require_found("hadolint", found=hadolint.exists())
    done = subprocess.run(  # noqa: S603 - our own arguments
        [str(hadolint), str(ROOT / "Dockerfile")],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_both_stages_stand_on_one_pinned_base() -> None:
    """The environment that is copied from the one to the other needs the same Python there."""
    default = re.search(r"^ARG PYTHON=(\S+)$", TEXT, re.MULTILINE)
    assert default is not None
    assert re.fullmatch(r"3\.\d+-slim-[a-z]+", default[1]), "a tag that says what it is"
    assert BUILD.base == FINAL.base == "python:${PYTHON}"
    assert BUILD.name == "build"
    wanted = re.search(
        r'^requires-python = ">=(\S+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert wanted is not None
    assert default[1].startswith(f"{wanted[1]}-"), "the version that the tests run with"


def test_it_runs_as_nobody_in_particular() -> None:
    user, _, group = FINAL.one("USER").partition(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    made = " ".join(FINAL.all("RUN"))
    assert f"groupadd --system --gid {group} edged" in made
    assert f"useradd --system --uid {user} --gid edged" in made
    after = [name for name, _ in FINAL.steps[FINAL.steps.index(("USER", f"{user}:{group}")) :]]
    assert "RUN" not in after
    assert "COPY" not in after
    for place in (AdminConfig().socket.parent, Path("/var/lib/edged")):
        assert f" {place}" in made, "it may write there"


def test_it_has_no_build_tools() -> None:
    assert re.search(r"pip uninstall .*\bsetuptools wheel pip\b", " ".join(FINAL.all("RUN")))
    assert "--without-pip" in " ".join(BUILD.all("RUN"))
    assert "apt-get" not in " ".join(FINAL.all("RUN"))
    assert FINAL.all("COPY") == ["--from=build /opt/edged /opt/edged"]


def test_the_ports_are_those_that_edged_listens_on() -> None:
    tables = (
        *(RtmpConfig, RtmpTlsConfig, PlaybackConfig, PlaybackTlsConfig),
        *(OriginConfig, IrsConfig, MetricsConfig),
    )
    defaults = [
        field.default
        for table in tables
        for field in structs.fields(table)
        if field.name == "listen"
    ]
    ports = {parse_address(str(listen))[1] for listen in defaults}
    assert {int(port) for port in FINAL.one("EXPOSE").split()} == ports


def test_signals_reach_it_and_a_probe_asks_it() -> None:
    """Exec form throughout: a shell in between would swallow the signal."""
    assert json.loads(FINAL.one("ENTRYPOINT")) == ["edged"]
    assert json.loads(FINAL.one("CMD")) == ["run", "-c", FILE]
    assert FINAL.one("STOPSIGNAL") == "SIGTERM"
    options, _, command = FINAL.one("HEALTHCHECK").partition(" CMD ")
    assert json.loads(command) == ["edged", "health"]
    assert re.search(r"--interval=\d+s --timeout=\d+s --start-period=\d+s --retries=\d", options)


def context() -> Iterator[Path]:
    """The files that .dockerignore lets into the build, of those that git would commit."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],  # noqa: S607 - whichever git is there
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        ignored = False
        for line in lines:
            pattern = line.removeprefix("!").removeprefix("**/")
            parts = name.split("/")
            heads = ["/".join(parts[: end + 1]) for end in range(len(parts))]
            if any(fnmatch.fnmatch(head, pattern) for head in heads):
                ignored = not line.startswith("!")
        if not ignored and (ROOT / name).is_file():
            yield Path(name)


def test_the_build_gets_what_it_needs_and_nothing_else() -> None:
    tops = {path.parts[0] for path in context()}
    assert tops == {"edged", "pyproject.toml", "README.md"}
    for sources in BUILD.all("COPY"):
        for source in sources.split()[:-1]:
            assert source in tops


@pytest.mark.e2e
@pytest.mark.timeout(400)
async def test_its_steps_make_an_edged_that_runs(tmp_path: Path) -> None:
    require("npm", "bash", "gcc")
    places = {name: tmp_path / name for name in ("src", "wheels", "opt/edged")}
    for path in context():
        target = places["src"] / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, target)
    if native.in_use():  # Made here when the tests were installed: a minute that tells nothing new.
        shutil.copytree(ROOT / "edged" / native.FOLDER, places["src"] / "edged" / native.FOLDER)
    for command in BUILD.all("RUN"):
        if "apt-get" not in command:
            here = command
            for name, place in places.items():
                here = re.sub(rf"(?<=[ =])/{name}(?=[ /])", str(place), here)
            here = re.sub(r"\bpython -m", f"{sys.executable} -m", here)
            assert here != command
            await shell(here, places["src"])
    edged = places["opt/edged"] / "bin" / "edged"
    assert not (edged.parent / "pip").exists()
    check_size(places["opt/edged"])
    ports = take_ports(["irs", "metrics"])
    private = tmp_path / f"edged-{os.getuid()}"  # Where a command that is told nothing looks too.
    private.mkdir(0o700)
    config = tmp_path / "edged.toml"
    config.write_text(
        f'[irs]\nlisten = "127.0.0.1:{ports["irs"]}"\n[admin]\nsocket = "{private}/admin.sock"\n'
        f'[metrics]\nlisten = "127.0.0.1:{ports["metrics"]}"\n'
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ |= {"PATH": f"{edged.parent}:{environ['PATH']}", "TMPDIR": str(tmp_path)}
    entry = [*json.loads(FINAL.one("ENTRYPOINT")), *json.loads(FINAL.one("CMD"))]
    probe = json.loads(FINAL.one("HEALTHCHECK").partition(" CMD ")[2])
    running = await trio.lowlevel.open_process(
        [str(edged), *(word.replace(FILE, str(config)) for word in entry[1:])], env=environ
    )
    try:
        deadline = time.monotonic() + 20
        while (healthy := await probe_with(probe, environ)).returncode:
            assert time.monotonic() < deadline, healthy.stderr
            await trio.sleep(0.2)
        assert healthy.stdout.startswith(b"irs: fit\n")
        running.send_signal(signal.Signals[FINAL.one("STOPSIGNAL")])
        with trio.fail_after(10):
            assert await running.wait() == 0
        assert (await probe_with(probe, environ)).returncode == 1
    finally:
        if running.poll() is None:
            running.kill()
            await running.wait()


def check_size(folder: Path) -> None:
    """What the final stage copies is as small as the Dockerfile says, links not counted."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    said = re.search(r"^# It adds some (\d+) MB to Python's image", TEXT, re.MULTILINE)
    assert said is not None
    assert size_mb == pytest.approx(int(said[1]), rel=SIZE_TOLERANCE)


async def shell(command: str, folder: Path) -> None:
    words = json.loads(BUILD.one("SHELL"))
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = await trio.run_process(
        [*words, command], cwd=folder, env=environ, capture_stdout=True, capture_stderr=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}:\n{(done.stdout + done.stderr).decode()[-3000:]}"


async def probe_with(
    probe: list[str], environ: dict[str, str]
) -> "subprocess.CompletedProcess[bytes]":
    found = shutil.which(probe[0], path=environ["PATH"])
    assert found is not None
    return await trio.run_process(
        [found, *probe[1:]], env=environ, capture_stdout=True, capture_stderr=True, check=False
    )
