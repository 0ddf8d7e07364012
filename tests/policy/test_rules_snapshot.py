"""What is taken of a PoP survives the file; what is no snapshot is refused with the reason."""

import msgspec
import pytest

from edged.errors import EdgedError
from edged.media.routing import Match, OriginState, Rule
from edged.policy import rules_snapshot as snapshot_module
from edged.policy.pop_view import PopView
from edged.policy.rules_snapshot import RulesSnapshot, decode, merge, take_pop
from tests.policy.pops_taken import PARTNER, stream, take

RULES = (Rule(name="vip", match=Match(class_="partner"), on_full="preempt", dscp="af41"),)


def test_all_that_is_taken_survives_the_file() -> None:
    pop = take(
        [stream("bob", "o1", priority=PARTNER, tags=("e:1",)), stream("alice", "o2")],
        {"o1": 5.0, "o2": 9.0},
        rules=RULES,
        elsewhere={"carol": ("o2", ("e:1",))},
    )
    snapshot = RulesSnapshot(pops=(pop,))
    assert decode(msgspec.json.encode(snapshot), "file") == snapshot
    assert [taken.request.channel for taken in pop.streams] == ["alice", "bob"]
    assert (pop.key, pop.epoch, pop.version, pop.lease_left_s) == ("ams1", 1, 7, 10.0)
    origin = pop.origins[0]
    assert (origin.row.origin, origin.rtt_ms, origin.used, origin.down) == ("o1", 5.0, 1, "")
    assert origin.state is OriginState.UP
    assert origin.report is not None
    assert pop.rules == RULES
    assert pop.elsewhere[0].channel == "carol"


def test_an_epoch_of_the_year_2040_survives_the_file() -> None:
    pop = msgspec.structs.replace(take([], {"o1": 5.0}), epoch=2_208_988_800)
    snapshot = RulesSnapshot(pops=(pop,))
    assert decode(msgspec.json.encode(snapshot), "file") == snapshot


def test_what_is_not_known_is_said_so() -> None:
    view = PopView("ams1")
    with pytest.raises(EdgedError, match="PoP ams1 has no routing table yet"):
        take_pop(view, [], {}, shard=0, now=0.0, unix=0.0)
    pop = take([], {"o1": 5.0})
    assert pop.origins[0].used == 0
    table = take([], {"o1": 1.0})
    assert table.elsewhere == ()


def test_streams_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "STREAMS_MAX", 2)
    streams = [stream(channel, "o1") for channel in "cab"]
    pop = take(streams[:2], {"o1": 1.0})
    assert (len(pop.streams), pop.streams_total) == (2, 2)
    pop = take(streams, {"o1": 1.0})
    assert [taken.request.channel for taken in pop.streams] == ["a", "b"]
    assert pop.streams_total == 3


def test_streams_elsewhere_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "STREAMS_MAX", 2)
    there = dict.fromkeys("cab", ("o1", ("e:1",)))
    pop = take([], {"o1": 1.0}, elsewhere=dict(list(there.items())[:2]))
    assert (len(pop.elsewhere), pop.elsewhere_total) == (2, 2)
    pop = take([], {"o1": 1.0}, elsewhere=there)
    assert [known.channel for known in pop.elsewhere] == ["a", "b"]
    assert pop.elsewhere_total == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no snapshot of `edged rules snapshot`: Input data was truncated"),
        (b"[]", "is no snapshot of `edged rules snapshot`: Expected `object`"),
        (b"{}", "is no snapshot that is known here: 'no format'"),
        (b'{"format": "edged rules snapshot 2"}', "'edged rules snapshot 2', not 'edged"),
        (b'{"format": "edged rules snapshot 1"}', "missing required field `pops`"),
        (b'{"format": 5}', "Expected `str`, got `int`"),
        (b"[" * 100_000, "is no snapshot"),
    ],
)
def test_what_is_no_snapshot(data: bytes, message: str) -> None:
    with pytest.raises(EdgedError) as caught:
        decode(data, "x.json")
    assert str(caught.value).startswith("x.json: ")
    assert message in str(caught.value)


def test_the_size_at_its_limit_and_one_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = msgspec.json.encode(RulesSnapshot(pops=()))
    monkeypatch.setattr(snapshot_module, "SNAPSHOT_BYTES_MAX", len(data))
    assert decode(data, "x") == RulesSnapshot(pops=())
    with pytest.raises(EdgedError, match=f"x: {len(data) + 1} bytes exceed {len(data)}"):
        decode(data + b" ", "x")


def test_merged_each_pop_is_as_it_was_last(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = take([], {"o1": 1.0}, at=1.0), take([], {"o2": 1.0}, at=2.0)
    shard, other = take([], {"o1": 1.0}, shard=2), take([], {"o1": 1.0}, pop="lhr1")
    snapshots = [RulesSnapshot(pops=(new, shard)), RulesSnapshot(pops=(old, other))]
    assert merge(snapshots).pops == (new, shard, other)
    assert [pop.key for pop in merge(snapshots).pops] == ["ams1", "ams1/2", "lhr1"]
    monkeypatch.setattr(snapshot_module, "POPS_MAX", 2)
    with pytest.raises(EdgedError, match="3 PoPs in all the snapshots exceed 2"):
        merge(snapshots)
