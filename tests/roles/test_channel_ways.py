"""Why a channel comes to a PoP as it does, in words."""

import pytest

from edged.policy.reach_orders import HeldSeen
from edged.roles.channel_ways import NO_RELAY, NOT_HERE, as_list, why_from_there
from edged.roles.relaying import SourceSeen

REFUSED = SourceSeen(channel="x", source="fra1", ordered="ams1/0", why="avoided: it is silent")
FULL = HeldSeen(channel="x", held=False, why="more than may be held")


@pytest.mark.parametrize(
    ("source", "relay", "seen", "held", "why"),
    [
        ("ams1/0", "ams1/0", None, [], ""),
        ("fra1", "ams1/0", REFUSED, [], "avoided: it is silent"),
        ("fra1", "", None, [], NO_RELAY),
        ("", "", None, [], NOT_HERE),
        ("", "", None, [FULL], "more than may be held"),
    ],
)
def test_it_is_said_why(
    source: str, relay: str, seen: SourceSeen | None, held: list[HeldSeen], why: str
) -> None:
    assert why_from_there(source, relay, seen, held) == why


def test_all_rungs_are_none_in_particular() -> None:
    assert as_list(None) is None
    assert as_list(("v0", "v1")) == ["v0", "v1"]
