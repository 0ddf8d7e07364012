import pytest
import trio
import trio.lowlevel

from edged.backbone import sender as sender_module
from edged.backbone.forwarding import Forwarding
from edged.errors import EdgedError, PublishRefusedError
from edged.media.stream import Grant, StreamId
from edged.media.track import Track
from edged.runtime.hub import LiveStream
from edged.wire.backbone.frames import MESSAGE_BYTES_MAX
from edged.wire.backbone.messages import (
    Message,
    RenditionAck,
    StreamAccepted,
    StreamAck,
    StreamClosed,
    StreamOpened,
    StreamRefused,
    UnitsAcked,
)
from tests.backbone.network import Origin, Pop, RawPeer, append, raw_origin, until
from tests.wire.backbone.builders import make_track

ALICE = StreamId("alice", 7, 1)
RENDITIONS = [RenditionAck("v0", 3, 1, 1000, 0, "0" * 16)]


def make_forwarding() -> Forwarding:
    stream = LiveStream(ALICE, Grant(channel="alice"), started_at=0.0, came_from="test")
    stream.set_track(make_track())
    append(stream, 100)
    return Forwarding(stream, ALICE, "ams")


def test_acks_advance_and_never_go_back() -> None:
    forwarding = make_forwarding()
    forwarding.acked(StreamAck(1, 1, 50, 40, RENDITIONS), 5.0)
    forwarding.acked(StreamAck(1, 1, 30, 20, []), 6.0)
    forwarding.acked(StreamAck(1, 2, 90, 90, []), 7.0)  # Of another epoch.
    statistics = forwarding.statistics()
    assert (statistics.received_seq, statistics.packaged_seq) == (50, 40)
    assert statistics.progress_at == 5.0
    assert forwarding.renditions == RENDITIONS


def test_what_a_run_of_elsewhere_was_acked_before_counts_for_nothing() -> None:
    """Its splice asks for units that only the PoP before had."""
    stream = LiveStream(ALICE, Grant(channel="alice"), started_at=0.0, came_from="test")
    stream.set_track(make_track())
    stream.ring.note_loss(2**32)
    append(stream, 100)
    forwarding = Forwarding(stream, ALICE, "ams", takes_over=True)
    assert forwarding.packaged_seq == 2**32 - 1
    forwarding.acked(StreamAck(1, 1, 2**32 + 5, 40, RENDITIONS, b"as of unit 40"), 5.0)
    assert (forwarding.packaged_seq, forwarding.splice) == (2**32 - 1, b"")
    forwarding.acked(StreamAck(1, 1, 2**32 + 5, 2**32 - 1, RENDITIONS, b"as of then"), 5.0)
    assert (forwarding.packaged_seq, forwarding.splice) == (2**32 - 1, b"as of then")
    forwarding.tell_waiting()  # Without a session; it is offered with it.


def test_acks_of_what_was_never_sent_are_cut() -> None:
    forwarding = make_forwarding()
    forwarding.acked(StreamAck(1, 1, 10**9, 10**9, []), 5.0)
    assert forwarding.received_seq == forwarding.packaged_seq == 99


async def test_the_next_origin_gets_what_the_last_one_acked() -> None:
    first = make_forwarding()
    first.acked(StreamAck(1, 1, 50, 40, RENDITIONS), 5.0)
    first.close("failed over")
    first.close("twice")
    await first.wait_decided()
    first.session_lost()
    assert first.state == "closed"
    second = Forwarding(first.stream, StreamId("alice", 7, 2), "lon", after=first)
    assert (second.packaged_seq, second.renditions) == (40, RENDITIONS)
    assert second.received_seq == -1
    second.accepted(5)  # Nobody asked.
    assert second.state == "waiting"
    second.refused("full", "no slot")
    with pytest.raises(PublishRefusedError, match="full: no slot"):
        await second.wait_decided()


@pytest.mark.parametrize(
    ("code", "newest", "fenced_by"),
    [
        ("fenced", StreamId("alice", 8), StreamId("alice", 8)),
        ("fenced", None, None),  # Of an older peer.
        ("fenced", StreamId("bob", 8), None),
        ("full", StreamId("alice", 8), None),
    ],
)
def test_a_refusal_says_by_what_it_is_fenced(
    code: str, newest: StreamId | None, fenced_by: StreamId | None
) -> None:
    forwarding = make_forwarding()
    forwarding.refused(code, "x", newest)
    assert forwarding.fenced_by == fenced_by


async def collect(peer: RawPeer) -> None:
    await peer.lost_reason()


def of(peers: list[RawPeer], kind: type[Message]) -> list[Message]:
    return [m for peer in peers for m in peer.messages if isinstance(m, kind)]


@pytest.mark.e2e
async def test_what_an_origin_says_of_other_streams_is_ignored() -> None:
    peers: list[RawPeer] = []

    async def act(peer: RawPeer) -> None:
        peers.append(peer)
        await collect(peer)

    pop = Pop()
    async with raw_origin(act) as address:
        origin = Origin()
        origin.address = address
        async with pop.linked(origin) as link:
            forwarding = link.forward(pop.publish())
            await until(lambda: of(peers, StreamOpened))
            (peer,) = (p for p in peers if p.messages)
            for message in (
                UnitsAcked([StreamAck(99, 1, 5, 5)]),
                StreamAccepted(99, 1),
                StreamRefused(99, "full", "x"),
                StreamAccepted(1, 10**12),
                StreamAccepted(1, 0),
            ):
                peer.link.send(message)
            await forwarding.wait_decided()
            assert forwarding.state == "open"
            append(forwarding.stream, 5)
            peer.link.send(StreamRefused(1, "x" * 1000, "y" * 1000))
            await until(lambda: of(peers, StreamClosed))
            assert pop.refusals == [(forwarding, "x" * 64, "y" * 500)]


@pytest.mark.e2e
async def test_a_stream_withdrawn_before_the_answer_is_closed() -> None:
    peers: list[RawPeer] = []

    async def act(peer: RawPeer) -> None:
        peers.append(peer)
        await collect(peer)

    pop = Pop()
    async with raw_origin(act) as address:
        origin = Origin()
        origin.address = address
        async with pop.linked(origin) as link:
            forwarding = link.forward(pop.publish())
            await until(lambda: of(peers, StreamOpened))
            link.stop_forwarding(forwarding, "re-homed")
            await until(lambda: of(peers, StreamClosed))
            assert of(peers, StreamClosed) == [StreamClosed(1, "re-homed", ended=False)]
            await trio.lowlevel.checkpoint()


@pytest.mark.e2e
async def test_tracks_that_fit_no_message_are_refused_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin) as link:
        stream = pop.publish()
        small = make_track()
        config = type(small.config)(
            codec=small.codec, record=bytes(MESSAGE_BYTES_MAX), codec_string="x"
        )
        stream.set_track(
            Track(track_id=1, codec=small.codec, timescale=90_000, config=config, config_id=1)
        )
        forwarding = link.forward(stream)
        with pytest.raises(PublishRefusedError, match="unsupported_media: StreamOpened of"):
            await forwarding.wait_decided()
        assert pop.refusals[0][0] is forwarding
        # A good one goes on the same session.
        good = link.forward(pop.publish("bob"))
        await good.wait_decided()
        monkeypatch.setattr(sender_module, "FORWARDINGS_MAX", 1)
        with pytest.raises(EdgedError, match="1 streams go to ams already"):
            link.forward(pop.publish("carl"))
