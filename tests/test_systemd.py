"""The units in systemd/: well formed, hardened, and of the same opinion as the program."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edged.api.admin import AdminConfig
from edged.cli import EXIT_CONFIG
from edged.cli.run import STOP_S_MAX
from edged.config import DrainConfig
from edged.runtime.listeners import BACKLOG
from tests.conftest import require
from tests.under_unit import allowed_calls

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "systemd" / "edged@.service"
SOCKET = ROOT / "systemd" / "edged@.socket"
EXPOSURE_MAX = 1.5  # Of 10; services as Debian ships them have 9.6.


def test_the_service_is_hardened() -> None:
    require("systemd-analyze")
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],  # noqa: S607 - whichever is installed
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSURE_MAX


@pytest.mark.parametrize("name", ["setpriority", "prlimit64", "pidfd_open", "chroot"])
def test_the_filter_allows_what_children_need(name: str) -> None:
    """What children need is allowed; what nobody needs is not."""
    require("systemd-analyze")
    assert (name in allowed_calls(UNIT.read_text())) == (name != "chroot")


def test_what_the_filter_takes_is_refused() -> None:
    """Else the test below would say nothing: this anybody may, but for the filter."""
    require("systemd-analyze")
    command = ["-c", "import os; os.sched_setaffinity(0, os.sched_getaffinity(0))"]
    for before, code in ((["-m", "tests.under_unit", sys.executable], 1), ([], 0)):
        done = subprocess.run(  # noqa: S603 - our own arguments
            [sys.executable, *before, *command], cwd=ROOT,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, "PermissionError" in done.stderr) == (code, bool(code))


@pytest.mark.parametrize(
    "tests",
    [
        ["tests/runtime/test_child.py"],
        ["tests/origin/test_speed.py"],
        ["tests/origin/test_transcoder.py", "-k", "published"],
        ["tests/origin/test_encoder_probe.py"],
        ["tests/roles/test_all_in_one.py", "-k", "one_pop_to_the_other or admin_door"],
    ],
    ids=lambda tests: Path(tests[0]).stem,
)
def test_it_works_under_the_service_s_own_filter(tests: list[str]) -> None:
    """Ladders, the measurement of the machine, the search for hardware encoders; and all roles."""
    require("systemd-analyze")
    command = [sys.executable, "-m", "tests.under_unit", sys.executable, "-m", "pytest"]
    done = subprocess.run(  # noqa: S603 - our own arguments
        [*command, "-p", "no:cacheprovider", *tests], cwd=ROOT,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


def test_systemd_knows_every_key(tmp_path: Path) -> None:
    require("systemd-analyze")
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    program = shutil.which("true")
    assert program is not None
    unit.write_text(text.replace("/opt/edged/bin/edged", program))
    drop_in = tmp_path / f"{UNIT.name}.d" / "gpu.conf"
    drop_in.parent.mkdir()
    shutil.copy(ROOT / "systemd" / "edged-gpu.conf", drop_in)
    sock = tmp_path / SOCKET.name
    shutil.copy(SOCKET, sock)
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["systemd-analyze", "verify", "--man=no", str(unit), str(sock)],  # noqa: S607 - whichever is installed
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "edged" in line or "gpu.conf" in line]
    assert ours == []


def test_it_asks_for_what_the_program_does() -> None:
    text = UNIT.read_text()
    assert "Type=notify" in text
    assert re.search(r"^WatchdogSec=\d+$", text, re.MULTILINE)
    assert "edged run -c ${CONFIGURATION_DIRECTORY}/%i.toml" in text
    assert f"RestartPreventExitStatus={EXIT_CONFIG}\n" in text


def test_a_reload_says_whether_it_was_refused() -> None:
    command = "edged reload -c ${CONFIGURATION_DIRECTORY}/%i.toml --shard auto"
    assert f"\nExecReload=/opt/edged/bin/{command}\n" in UNIT.read_text()


def test_it_waits_for_the_drain_of_a_stop() -> None:
    found = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    assert int(found[1]) > DrainConfig().on_stop_s + STOP_S_MAX


def test_its_folders_are_where_the_configuration_looks() -> None:
    text = UNIT.read_text()
    assert "\nRuntimeDirectory=edged\n" in text
    assert AdminConfig().socket.parent == Path("/run/edged")
    assert "\nStateDirectory=edged\n" in text
    assert "\nCacheDirectory=edged\n" in text
    for name in ("pop.toml", "origin.toml", "irs.toml"):
        paths = set(re.findall(r'"(/(?:run|var|etc)/[^"]+)"', (ROOT / "config" / name).read_text()))
        assert paths
        for path in paths:
            folders = ("/run/edged/", "/var/lib/edged/", "/var/cache/edged/", "/etc/edged/")
            assert f"{path}/".startswith(folders), path


def test_the_sockets_are_those_that_a_pop_listens_on() -> None:
    """As config/pop.toml has them, shown defaults included: what matches no `listen` is closed."""
    text = SOCKET.read_text()
    ports = re.findall(r"^ListenStream=(\d+)$", text, re.MULTILINE)
    shown = (ROOT / "config" / "pop.toml").read_text()
    listens = re.findall(r'^#?listen = "\[::\]:(\d+)"$', shown, re.MULTILINE)
    assert ports == listens == ["1935", "1936", "8080", "8443"]
    assert "\nBindIPv6Only=both\n" in text
    assert "\nReusePort=yes\n" in text
    assert f"\nBacklog={BACKLOG}\n" in text
