"""Counters read once a second: streams, links, roles and totals."""

import hypothesis
import pytest
import trio
from hypothesis import strategies as st
from msgspec import Struct
from trio.testing import MockClock

from edged.backbone.receiver import PeerStatistics
from edged.backbone.statistics import OriginLinkStatistics
from edged.media.stream import Grant, StreamId
from edged.roles.health import HealthOf, HealthView, unknown_health
from edged.roles.sampler import FDS_EVERY, INTERVAL_S, SLICE_STREAMS, Sampler, peer_key
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump
from edged.runtime.track_statistics import TrackStatistics
from tests.policy.synthetic import RATES, audio_track, video_track
from tests.roles.crowd import send


class Pop:
    """What the sampler needs of a PoP."""

    name = "pop west"

    def __init__(self) -> None:
        self.pump, self.hub = Pump(), Hub()
        self.health: HealthOf = unknown_health
        self.watching: dict[str, int] = {}
        self.sent = self.body_bytes = 0
        self.linked = ["fra1"]

    def viewers(self, channel: str) -> int:
        return self.watching.get(channel, 0)

    def viewers_total(self) -> int:
        return sum(self.watching.values())

    def links(self) -> list[OriginLinkStatistics]:
        return [
            OriginLinkStatistics(
                origin=name,
                address="",
                up=[],
                forwardings=0,
                subscriptions=0,
                reconnects=0,
                units_skipped=0,
                received_bytes=self.sent // 10,
                sent_bytes=self.sent,
                control=None,
            )
            for name in self.linked
        ]

    def served_bytes(self) -> int:
        return self.body_bytes

    def open(self, channel: str = "alice", publication: int = 1) -> LiveStream:
        stream = self.hub.open(
            StreamId(channel, publication), Grant(channel=channel), started_at=0.0, came_from="x"
        )
        stream.set_track(video_track(RATES["30"]))
        stream.set_track(audio_track())
        return stream


class Origin:
    name = "origin fra1"

    def __init__(self) -> None:
        self.pump, self.hub = Pump(), Hub()
        self.connected = {("west", 1): PeerStatistics(sessions=4)}

    def peers(self) -> dict[tuple[str, int], PeerStatistics]:
        return self.connected


def passes(sampler: Sampler, seconds: int, start: float = 100.0) -> None:
    for second in range(seconds):
        for _ in sampler.sample(start + second):
            pass


async def test_a_stream_is_measured_by_its_counters() -> None:
    pop = Pop()
    sampler = Sampler([pop], [])
    stream = pop.open()
    for second in range(10):
        send(stream, 1.0)
        passes(sampler, 1, 100.0 + second)
    samples = sampler.of(pop).streams["alice"]
    health = samples.health
    assert health.fps == pytest.approx(30.0)
    assert health.bitrate_bps_2s == pytest.approx(30 * 10_000 * 8, rel=0.01)
    assert health.bitrate_bps_60s == pytest.approx(health.bitrate_bps_2s)
    assert samples.fps_wanted == 30.0
    assert health.silent_s == 0.0
    assert health.warnings == []
    assert (health.jitter_ms, health.av_skew_ms, health.jumps) == (None, None, None)


async def test_silence_is_told_and_how_long_it_has_been() -> None:
    pop = Pop()
    sampler = Sampler([pop], [])
    stream = pop.open()
    send(stream, 1.0)
    passes(sampler, 6)
    (warning,) = sampler.of(pop).streams["alice"].health.warnings
    assert (warning.code, warning.for_s) == ("silent", 2.0)
    send(stream, 1.0)
    passes(sampler, 1, 106.0)
    left = [warning.code for warning in sampler.of(pop).streams["alice"].health.warnings]
    assert left == ["frames_missing"]


async def test_a_measurer_is_asked_where_there_is_one() -> None:
    class View(Struct):
        fps: float | None = 59.9
        bitrate_bps: float = 1e6
        bitrate_60s_bps: float = 1e6
        gop_s: float | None = None
        jitter_ms: float | None = 4.0
        av_skew_ms: float | None = None
        jumps: int = 0
        warnings: list[object] = []

    def health(channel: str) -> HealthView | None:
        return View() if channel == "alice" else None  # type: ignore[return-value]

    pop = Pop()
    pop.health = health
    sampler = Sampler([pop], [])
    for channel in ("alice", "bob"):
        pop.open(channel)
    passes(sampler, 1)
    streams = sampler.of(pop).streams
    assert (streams["alice"].health.fps, streams["alice"].health.jitter_ms) == (59.9, 4.0)
    assert streams["bob"].health.jitter_ms is None


async def test_a_newer_publication_begins_anew_and_one_that_is_gone_is_forgotten() -> None:
    pop = Pop()
    sampler = Sampler([pop], [])
    older = pop.open()
    send(older, 1.0)
    passes(sampler, 2)
    newer = pop.open(publication=2)
    passes(sampler, 1, 102.0)
    samples = sampler.of(pop).streams["alice"]
    assert samples.stream is newer
    assert len(samples.history) == 1
    pop.hub.close(newer, "over")
    passes(sampler, 1, 103.0)
    assert sampler.of(pop).streams == {}


async def test_links_peers_and_what_is_served() -> None:
    pop, origin = Pop(), Origin()
    sampler = Sampler([pop], [origin])
    for second in range(4):
        pop.sent += 125_000
        pop.body_bytes += 250_000
        origin.connected["west", 1].sent_bytes += 500
        passes(sampler, 1, 100.0 + second)
    samples = sampler.of(pop)
    assert samples.link_bps("fra1") == pytest.approx((1e5, 1e6))
    assert samples.link_bps("nowhere") == (0.0, 0.0)
    assert samples.out_bps == pytest.approx(2e6)
    assert sampler.of(origin).link_bps(peer_key("west", 1)) == pytest.approx((0.0, 4000.0))
    pop.linked = []
    origin.connected = {}
    passes(sampler, 1, 104.0)
    assert sampler.of(pop).links == sampler.of(origin).links == {}


async def test_totals_are_of_pops_where_there_are_any() -> None:
    pop, origin = Pop(), Origin()
    pop.watching = {"alice": 3, "elsewhere": 4}
    pop.open()
    for channel in ("alice", "bob"):
        origin.hub.open(
            StreamId(channel, 1), Grant(channel=channel), started_at=0.0, came_from="backbone"
        )
    both, alone = Sampler([pop], [origin]), Sampler([], [origin])
    for sampler in (both, alone):
        passes(sampler, 2)
    assert (both.totals.latest(0), both.totals.latest(1)) == (1, 7)
    assert (alone.totals.latest(0), alone.totals.latest(1)) == (2, 0)
    assert both.totals.values(0) == [1.0, 1.0]


async def test_a_pass_stops_after_each_slice() -> None:
    pop = Pop()
    for number in range(3 * SLICE_STREAMS + 1):
        pop.open(f"c{number}")
    sampler = Sampler([pop], [])
    assert sum(1 for _ in sampler.sample(1.0)) == 3 + 1
    assert len(sampler.of(pop).streams) == 3 * SLICE_STREAMS + 1


async def test_streams_that_come_and_go_within_a_pass_do_no_harm() -> None:
    pop = Pop()
    for number in range(2 * SLICE_STREAMS):
        pop.open(f"c{number}")
    sampler = Sampler([pop], [])
    for _ in sampler.sample(1.0):
        gone = pop.hub.get("c99")
        if gone is not None:
            pop.hub.close(gone, "over")
        pop.open(f"new{len(pop.hub)}")
    passes(sampler, 1, 2.0)
    assert "c99" not in sampler.of(pop).streams
    assert len(sampler.of(pop).streams) == len(pop.hub)


async def test_it_samples_once_a_second_and_once_after_a_pause(autojump_clock: MockClock) -> None:
    pop = Pop()
    sampler = Sampler([pop], [])
    pop.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        await trio.sleep(FDS_EVERY * INTERVAL_S + 0.5)
        assert len(sampler.totals) == FDS_EVERY + 1
        autojump_clock.jump(30.0)
        await trio.sleep(0.1)
        assert len(sampler.totals) == FDS_EVERY + 2
        await trio.sleep(1.0)
        assert len(sampler.totals) == FDS_EVERY + 3
        nursery.cancel_scope.cancel()
    assert sampler.usage.rss_bytes > 0
    assert sampler.cpu_share >= 0.0


COUNTS = st.integers(0, 2**62)


@hypothesis.given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS), min_size=1, max_size=20))
def test_any_counters_give_finite_and_sane_health(counts: list[tuple[int, int, int]]) -> None:
    async def main() -> None:
        pop = Pop()
        sampler = Sampler([pop], [])
        stream = pop.open()
        for second, (units, payload_bytes, gop_us) in enumerate(counts):
            stream.track_statistics[1] = TrackStatistics(
                units=units, payload_bytes=payload_bytes, gop_us=gop_us
            )
            pop.sent = payload_bytes
            passes(sampler, 1, float(second))
            health = sampler.of(pop).streams["alice"].health
            assert health.fps is None or 0.0 <= health.fps <= 2.0**63
            for rate in (health.bitrate_bps_2s, health.bitrate_bps_60s):
                assert 0.0 <= rate <= 8 * 2.0**63
            assert 0.0 <= health.silent_s <= len(counts)
            assert all(0.0 <= bps <= 8 * 2.0**63 for bps in sampler.of(pop).link_bps("fra1"))

    trio.run(main)
