"""All fuzz targets by name."""

from tests.fuzz import doors, h2, ingest, links, network, probes, requests, tokens
from tests.fuzz.names import NAMES
from tests.fuzz.script import Target

_MODULES = (ingest, links, network, doors, requests, h2, tokens, probes)
_ALL = [target for module in _MODULES for target in module.TARGETS]
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}
assert tuple(TARGETS) == NAMES, "each target is named"
