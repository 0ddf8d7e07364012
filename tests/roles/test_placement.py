"""When an origin is taken for dead, and for how long it has not answered."""

import math

from edged.backbone.forwarding import Forwarding
from edged.media.routing import RouteRequest
from edged.media.stream import Grant, StreamId
from edged.policy.routing_table import Decision
from edged.roles.placement import Placement
from edged.runtime.hub import LiveStream
from tests.backbone.network import append
from tests.wire.backbone.builders import make_track

ALICE = StreamId("alice", 7)


def make_placement(units: int = 10) -> Placement:
    stream = LiveStream(ALICE, Grant(channel="alice"), started_at=0.0, came_from="test")
    stream.set_track(make_track())
    append(stream, units)
    return Placement(
        stream,
        RouteRequest(channel="alice"),
        Decision("one", "one:1", "nearest", 1, {}),
        Forwarding(stream, ALICE, "one"),
        lambda _: None,
        renumbered=0,
        joins=False,
        placed_at=100.0,
    )


def test_at_another_origin_its_time_begins_anew() -> None:
    placement = make_placement()
    placement.held_at = placement.silent_since = placement.offered_at = 101.0
    forwarding = Forwarding(placement.stream, StreamId("alice", 7, 2), "two")
    decision = Decision("two", "two:1", "moved", 1, {})
    placement.go_on(forwarding, decision, 120.0)
    assert (placement.forwarding, placement.decision) == (forwarding, decision)
    assert placement.accepted
    assert placement.held_at is None
    assert placement.stalled_s(121.0, down=True) == 1.0
    assert placement.unanswered_s(121.0) == 0.0


def test_an_origin_with_heartbeats_is_not_stalled() -> None:
    placement = make_placement()
    assert placement.stalled_s(500.0, down=False) == 0.0


def test_without_heartbeats_it_is_stalled_since_its_last_progress() -> None:
    placement = make_placement()
    assert placement.stalled_s(103.0, down=True) == 3.0  # Since it was placed there.
    placement.forwarding.received_seq, placement.forwarding.progress_at = 5, 104.0
    assert placement.stalled_s(105.0, down=True) == 1.0


def test_where_nothing_is_left_to_acknowledge_only_further_silence_counts() -> None:
    """As while the publisher is waited for: it can make no progress, so that shows nothing."""
    placement = make_placement()
    placement.forwarding.received_seq, placement.forwarding.progress_at = 9, 104.0
    assert placement.stalled_s(200.0, down=True) == 0.0
    assert placement.stalled_s(200.6, down=True) == 200.6 - 200.0
    assert placement.stalled_s(201.0, down=False) == 0.0
    assert placement.stalled_s(202.0, down=True) == 0.0  # From the beginning.


def test_an_answer_is_waited_for_from_each_offer_on() -> None:
    placement = make_placement()
    assert placement.unanswered_s(10.0) == 0.0  # Not offered.
    placement.forwarding.state = "opening"
    assert placement.unanswered_s(20.0) == 0.0
    assert placement.unanswered_s(22.0) == 2.0
    placement.forwarding.reopened = 1  # On another session.
    assert placement.unanswered_s(23.0) == 0.0
    assert placement.unanswered_s(24.0) == 1.0
    placement.forwarding.state = "open"
    assert placement.unanswered_s(25.0) == 0.0
    assert placement.offered_at is None
    assert placement.forwarding.progress_at == -math.inf
