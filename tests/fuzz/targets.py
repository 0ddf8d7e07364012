"""All fuzz targets by name."""

from tests.fuzz import doors, ingest, network
from tests.fuzz.names import NAMES
from tests.fuzz.script import Target

TARGETS: dict[str, Target] = {
    target.name: target for target in [*ingest.TARGETS, *network.TARGETS, *doors.TARGETS]
}
assert tuple(TARGETS) == NAMES, "each target is named"
