"""All fuzz targets by name."""

from tests.fuzz import doors, ingest, links, network, requests
from tests.fuzz.names import NAMES
from tests.fuzz.script import Target

_ALL = [*ingest.TARGETS, *links.TARGETS, *network.TARGETS, *doors.TARGETS, *requests.TARGETS]
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}
assert tuple(TARGETS) == NAMES, "each target is named"
