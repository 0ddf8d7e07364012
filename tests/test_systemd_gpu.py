"""The drop-in for GPUs, as systemd merges it into the unit: it opens GPUs, and nothing else."""

import json
import shutil
import subprocess
from pathlib import Path

from tests.conftest import require

UNITS = Path(__file__).parents[1] / "systemd"
CLOCKS = "char-rtc:r"  # ProtectClock= adds it to every list of devices (systemd.exec(5)).
OPENED = {
    "DeviceAllow",
    "MemoryDenyWriteExecute",
    "PrivateDevices",
    "ProcSubset",
    "SupplementaryGroups",
}


def assess(unit: Path) -> dict[str, str]:
    """What systemd finds that the unit may do, by property; a unit's drop-ins lie beside it."""
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--json=short", str(unit)],  # noqa: S607 - whichever is installed
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {row["json_field"]: row["description"] for row in json.loads(done.stdout)}


def devices(found: dict[str, str]) -> set[str]:
    """The devices that may be opened beside the pseudo ones, with what may be done to them."""
    _, _, listed = found["DeviceAllow"].partition("some special devices: ")
    return set(listed.split())


def test_gpus_are_opened_and_nothing_else_is(tmp_path: Path) -> None:
    require("systemd-analyze")
    unit = tmp_path / "edged@.service"
    shutil.copy(UNITS / unit.name, unit)
    without = assess(unit)
    drop_in = tmp_path / f"{unit.name}.d" / "gpu.conf"
    drop_in.parent.mkdir()
    shutil.copy(UNITS / "edged-gpu.conf", drop_in)
    found = assess(unit)
    assert devices(without) == {CLOCKS}
    assert devices(found) == {CLOCKS, "char-drm:rw", "char-nvidia*:rw"}
    assert found["PrivateDevices"] == "Service potentially has access to hardware devices"
    assert {name for name, said in found.items() if said != without[name]} == OPENED
