"""What an origin admits, packages and keeps for PoPs that come late."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec import structs
from structlog.testing import capture_logs

from edged.errors import PublishRefusedError
from edged.media.parts import PackagedEvent, Part, Rendition, SegmentsListed, StreamEnded
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import Codec, CodecConfig, Track
from edged.origin.service import (
    ENDED_KEPT_S,
    ENDED_RUNS_MAX,
    FOLLOWED_S_MAX,
    OriginConfig,
    OriginService,
)
from edged.policy.edge_cache import CacheLimits
from edged.policy.ladder import LadderConfig
from edged.policy.latency import PackagerConfig
from edged.policy.segment_cache import GONE, CacheConfig
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from edged.runtime.hub import Hub, LiveStream
from tests.policy.synthetic import (
    RATES,
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edged.origin.packager import Progress


class Setting:
    """A service, its hub, and everything it tells."""

    def __init__(
        self,
        slots: int = 10,
        reserve: int = 0,
        ladder: LadderConfig | None = None,
        **more: object,
    ) -> None:
        self.time = 0.0
        self.hub = Hub()
        self.events: list[tuple[StreamId, PackagedEvent]] = []
        self.acked: list[tuple[StreamId, Progress]] = []
        self.failures: list[tuple[StreamId, str]] = []
        self.service = OriginService(
            structs.replace(
                OriginConfig(name="fra1", slots=slots, slots_reserve=reserve, ladder=ladder), **more
            ),
            publish=lambda stream_id, event: self.events.append((stream_id, event)),
            packaged=lambda stream_id, progress: self.acked.append((stream_id, progress)),
            failed=lambda stream_id, reason: self.failures.append((stream_id, reason)),
            now=lambda: self.time,
        )

    def admit(
        self,
        channel: str = "alice",
        publication: int = 1,
        priority: PriorityClass = PriorityClass.BASIC,
    ) -> Grant:
        grant = Grant(channel=channel, priority=priority)
        self.service.admit(StreamId(channel, publication), grant, [])
        return grant

    def open(
        self, channel: str = "alice", publication: int = 1, latency: str = "default"
    ) -> LiveStream:
        grant = structs.replace(self.admit(channel, publication), latency=latency)
        stream = self.hub.open(
            StreamId(channel, publication), grant, started_at=0.0, came_from="test"
        )
        self.service.open(stream)
        return stream

    def close(self, stream: LiveStream, reason: str) -> None:
        self.hub.close(stream, reason)
        self.service.close(stream, reason)

    def of(self, stream: LiveStream) -> list[PackagedEvent]:
        return [event for stream_id, event in self.events if stream_id == stream.stream_id]


def feed(stream: LiveStream, seconds: float = 5.0, payload_bytes: int = 40) -> None:
    stream.set_track(video_track(RATES["30"]))
    stream.set_track(audio_track())
    units = in_order(
        (90_000, video_units(video_times(RATES["30"], seconds), 2, payload_bytes=payload_bytes)),
        (48_000, audio_units(seconds)),
    )
    for start in range(0, len(units), 10):
        stream.append(units[start : start + 10])


@pytest.mark.parametrize("silent", ["a0", "v0"])
def test_a_track_that_falls_silent_for_long_holds_the_other_up_for_nobody(silent: str) -> None:
    """Not those who watch, and not a PoP that comes later."""
    setting = Setting()
    stream = setting.open()
    stream.set_track(video_track(RATES["30"]))
    stream.set_track(audio_track())
    seconds = {"v0": 60.0, "a0": 60.0} | {silent: 6.0}
    units = in_order(
        (90_000, video_units(video_times(RATES["30"], seconds["v0"]), 2)),
        (48_000, audio_units(seconds["a0"])),
    )
    for start in range(0, len(units), 10):
        stream.append(units[start : start + 10])
    assert setting.failures == []
    goes_on = "v0" if silent == "a0" else "a0"
    parts = [event for event in setting.of(stream) if isinstance(event, Part)]
    ticks = sum(part.duration for part in parts if part.rendition == goes_on)
    timescale = 90_000 if goes_on == "v0" else 48_000
    assert ticks > 55 * timescale, "the other came as it came in"
    newest = setting.acked[-1][1]
    assert newest.received_seq - newest.packaged_seq < 300, "the PoP must be able to forget"
    replay = setting.service.replay("alice")
    assert replay is not None
    late = StreamWindow(
        replay[0], WindowLimits(playlist_s=30, retention_s=90, payload_bytes_max=2**28)
    )
    for event in replay[1]:
        late.add(event)
    assert late.ready
    playlist = late.media_playlist(goes_on)
    assert playlist is not None


def test_units_become_events_acks_and_a_window() -> None:
    setting = Setting()
    stream = setting.open()
    feed(stream)
    events = setting.of(stream)
    assert {part.rendition for part in events if isinstance(part, Part)} == {"v0", "a0"}
    newest = setting.acked[-1][1]
    assert newest.received_seq == stream.ring.next_seq - 1
    assert 0 < newest.packaged_seq <= newest.received_seq
    statistics = setting.service.statistics()
    assert statistics.streams == 1
    assert statistics.parts_total == sum(isinstance(event, Part) for event in events)
    assert statistics.window_bytes > 0


@pytest.mark.parametrize(
    ("ladder", "alone"),
    [
        (None, False),
        (LadderConfig(slots=1), True),
        (LadderConfig(slots=1, audio_only=False), False),
        (LadderConfig(slots=1, classes=("partner",)), False),
    ],
)
def test_sound_alone_is_offered_as_configured(ladder: LadderConfig | None, *, alone: bool) -> None:
    setting = Setting(ladder=ladder)
    stream = setting.open()
    feed(stream)
    offered = {e.name: e.alone for e in setting.of(stream) if isinstance(e, Rendition)}
    assert offered == {"v0": False, "a0": alone}
    replay = setting.service.replay("alice")
    assert replay is not None
    kept = {e.name: e.alone for e in replay[1] if isinstance(e, Rendition)}
    assert kept == offered, "for those who come late, too"


def test_acks_come_only_when_something_was_packaged() -> None:
    setting = Setting()
    stream = setting.open()
    stream.set_track(video_track(RATES["30"]))
    units = in_order((90_000, video_units(video_times(RATES["30"], 4.0), 2)))
    for unit in units:
        told, acked = len(setting.events), len(setting.acked)
        stream.append([unit])
        assert (len(setting.events) > told) == (len(setting.acked) > acked)
    assert 0 < len(setting.acked) < len(units)


def test_a_late_subscriber_gets_a_replay_that_makes_the_same_window() -> None:
    setting = Setting()
    assert setting.service.replay("alice") is None
    stream = setting.open()
    assert setting.service.replay("alice") is None  # Nothing is packaged yet.
    feed(stream)
    replay = setting.service.replay("alice")
    assert replay is not None
    stream_id, events = replay
    assert stream_id == stream.stream_id
    window = StreamWindow(stream_id)
    for event in events:
        window.add(event)
    first = next(event for event in events if isinstance(event, Part))
    assert first in setting.of(stream)
    assert window.renditions.keys() == {"v0", "a0"}


def test_the_end_ends_playlists_and_gives_the_slot_back() -> None:
    setting = Setting(slots=1)
    stream = setting.open()
    feed(stream)
    with pytest.raises(PublishRefusedError, match="full: no slot is free for class basic: 1 of 1"):
        setting.admit("bob")
    setting.close(stream, "publisher left")
    assert setting.of(stream)[-1] == StreamEnded(reason="publisher left")
    assert setting.service.replay("alice") is None
    setting.admit("bob")
    assert setting.service.statistics().slots_used == 1


def test_the_reserve_is_for_partners_and_the_heartbeat_says_so() -> None:
    setting = Setting(slots=3, reserve=1)
    assert setting.service.free() == (3, 2, 2)
    setting.admit("a")
    setting.admit("b")
    assert setting.service.free() == (1, 0, 0)
    with pytest.raises(PublishRefusedError, match="1 are kept for partners"):
        setting.admit("c", priority=PriorityClass.AFFILIATE)
    setting.admit("c", priority=PriorityClass.PARTNER)
    assert setting.service.free() == (0, 0, 0)


def ends(setting: Setting, stream: LiveStream) -> int:
    return sum(isinstance(event, StreamEnded) for event in setting.of(stream))


def test_who_has_not_followed_a_run_that_left_is_told_that_it_is_over() -> None:
    setting = Setting()
    stream = setting.open()
    feed(stream)
    stream.goes_on = True
    setting.hub.close(stream, "preempted: a stream of class partner needs its place")
    setting.service.close(stream, "preempted")
    setting.time += FOLLOWED_S_MAX - 0.01
    setting.service.sweep()
    assert ends(setting, stream) == 0, "those who follow it are not to be ended"
    setting.time += 0.01
    setting.service.sweep()
    setting.service.sweep()
    assert ends(setting, stream) == 1


def test_a_run_that_left_and_is_back_is_not_ended() -> None:
    setting = Setting()
    stream = setting.open()
    feed(stream)
    stream.goes_on = True
    setting.hub.close(stream, "drain")
    setting.service.close(stream, "drain")
    again = setting.open(publication=2)
    setting.time += FOLLOWED_S_MAX + 1
    setting.service.sweep()
    assert ends(setting, stream) == ends(setting, again) == 0


def test_a_newer_run_takes_the_channel_s_slot_and_ends_the_older() -> None:
    setting = Setting(slots=1)
    older = setting.open()
    feed(older, 3.0)
    newer = setting.open(publication=2)
    assert isinstance(setting.of(older)[-1], StreamEnded)
    setting.service.close(older, "taken over")  # Late: it is not the channel's any more.
    assert setting.service.statistics().slots_used == 1
    feed(newer, 3.0)
    replay = setting.service.replay("alice")
    assert replay is not None
    assert replay[0] == newer.stream_id
    assert not any(isinstance(event, StreamEnded) for event in setting.of(newer))


def test_a_stream_that_cannot_be_packaged_is_given_up_with_the_reason() -> None:
    setting = Setting()
    stream = setting.open()
    config = CodecConfig(codec=Codec.VP8, record=b"", codec_string="vp8", width=64, height=64)
    with capture_logs():
        stream.set_track(Track(track_id=1, codec=Codec.VP8, timescale=90_000, config=config))
        units = in_order((90_000, video_units(video_times(RATES["30"], 3.0), 2)))
        stream.append(units)
    assert setting.failures[0][0] == stream.stream_id
    assert "vp8" in setting.failures[0][1]
    assert isinstance(setting.of(stream)[-1], StreamEnded)


@pytest.mark.pure
def test_a_bug_in_packaging_ends_that_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting()
    broken, sound = setting.open(), setting.open("bob")

    def fail(*_: object) -> None:
        raise KeyError("bug")

    segmenter = setting.service._streams["alice"].packager._segmenter
    for name in ("add_unit", "end"):
        monkeypatch.setattr(segmenter, name, fail)
    with capture_logs() as logs:
        feed(broken)
        feed(sound)
        setting.close(broken, "internal error")
    assert setting.failures == [(broken.stream_id, "internal error: KeyError('bug')")]
    assert setting.of(broken) == [StreamEnded(reason="internal error")]
    assert setting.service.statistics().streams == 1
    assert any(isinstance(event, Part) for event in setting.of(sound))
    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "packager failed",
        "packager failed to end",
    ]


def test_the_reserve_is_part_of_the_slots() -> None:
    assert OriginConfig(name="a", slots=5, slots_reserve=5)
    with pytest.raises(ValueError, match="slots_reserve 6 exceeds slots 5"):
        OriginConfig(name="a", slots=5, slots_reserve=6)


def test_reconfigured_slots_count_at_once_and_lengths_for_new_streams() -> None:
    setting = Setting(slots=2)
    old = setting.open("alice")
    setting.service.reconfigure(
        OriginConfig(name="fra1", slots=1, playlist_s=20.0, packager=PackagerConfig(part_ms=400))
    )
    assert setting.service.free() == (0, 0, 0)
    with pytest.raises(PublishRefusedError, match="1 of 1 are used"):
        setting.admit("bob")
    feed(old)
    assert setting.service._streams["alice"].window.limits.playlist_s == 20.0, "at once"
    setting.close(old, "over")
    new = setting.open("carol")
    feed(new)
    assert setting.service._streams["carol"].window.limits.playlist_s == 20.0
    longest = {
        stream.channel: max(
            event.duration
            for event in setting.of(stream)
            if isinstance(event, Part) and event.rendition == "v0"
        )
        for stream in (old, new)
    }
    assert longest["carol"] == 2 * longest["alice"]


@pytest.mark.parametrize(
    ("latency", "told", "part_s"),
    [
        ("default", "default: segments of 2 s, parts of 200 ms", 0.2),
        ("ultra", "ultra: segments of 1 s, parts of 100 ms", 0.1),
        ("standard", "standard: segments of 2 s, no parts", 0.5),
    ],
)
def test_a_stream_is_cut_by_its_class(latency: str, told: str, part_s: float) -> None:
    setting = Setting()
    with capture_logs() as logs:
        stream = setting.open(latency=latency)
    assert [line["latency"] for line in logs if line["event"] == "stream opened"] == [told]
    assert setting.service.latency("alice") == told
    assert setting.service.has_parts("alice") is (latency != "standard")
    feed(stream)
    parts = [e for e in setting.of(stream) if isinstance(e, Part) and e.rendition == "v0"]
    assert max(part.duration for part in parts) == part_s * 90_000
    assert setting.service.latency("bob") == ""


def test_an_unknown_class_of_a_newer_pop_is_named_and_the_default_taken() -> None:
    setting = Setting()
    with capture_logs() as logs:
        setting.open(latency="hyper")
    (line,) = [line for line in logs if line["event"] == "unknown latency class"]
    assert (line["channel"], line["log_level"]) == ("alice", "warning")
    assert line["why"] == "'hyper' is none of default, low, ultra, standard"
    assert setting.service.latency("alice").startswith("default: ")


def test_a_ladder_is_cut_as_its_source_also_where_that_began_elsewhere() -> None:
    first = Setting()
    stream = first.open(latency="ultra")
    feed(stream)
    splice = first.acked[-1][1].splice
    second = Setting(ladder=LadderConfig())
    second.admit()
    again = second.hub.open(
        stream.stream_id, Grant(channel="alice"), started_at=0.0, came_from="test"
    )
    for track in stream.tracks.values():
        again.set_track(track)
    again.append(stream.ring.reader(start="oldest").read(9999, 2**30).units)
    second.service.open(again, splice)
    entry = second.service._streams["alice"]
    assert entry.ladder is not None
    assert entry.ladder._segmenter._config == entry.packager.config
    assert entry.packager.config.latency.name == "ultra", "the splice says so, not the grant"
    second.close(again, "over")


def test_a_late_pop_that_can_fetch_gets_little_and_lists_all() -> None:
    setting = Setting()
    stream = setting.open()
    feed(stream, seconds=40.0)
    replay = setting.service.replay("alice", lists=True, cold=True)
    assert replay is not None
    msns = {event.msn for event in replay[1] if isinstance(event, Part)}
    assert len(msns) <= 8, "what is listed with parts"
    late = StreamWindow(replay[0])
    for event in replay[1]:
        late.add(event)
    assert late.renditions["v0"].entries[0].msn <= 5, "30 s of 40"
    assert next(iter(late.renditions["v0"].segments)) == 0, "and more beyond"
    given: list[object] = []
    setting.service.give_segment(stream.stream_id, "v0", 0, given.append)
    body = setting.service._streams["alice"].window.segment("v0", 0)
    assert body is not None
    assert given == [body]


def test_what_has_ended_is_given_for_a_while() -> None:
    setting = Setting()
    stream = setting.open()
    feed(stream, seconds=10.0)
    setting.close(stream, "over")
    given: list[object] = []
    setting.service.give_segment(stream.stream_id, "v0", 1, given.append)
    assert isinstance(given[0], list)
    assert setting.service.statistics().ended == 1
    again = setting.open(publication=2)
    feed(again, seconds=5.0)
    setting.service.give_segment(stream.stream_id, "v0", 1, given.append)
    assert given[1] == given[0], "its own, not that of the next run"
    setting.time += ENDED_KEPT_S - 1
    setting.service.sweep()
    assert setting.service.statistics().ended == 1
    setting.time += 1
    setting.service.sweep()
    setting.service.give_segment(stream.stream_id, "v0", 1, given.append)
    assert given[2] == GONE
    assert setting.service.statistics().ended == 0
    setting.close(again, "over")
    setting.time += ENDED_KEPT_S
    setting.service.sweep()
    assert setting.service.statistics().window_bytes == 0


def test_a_run_that_comes_back_is_given_with_what_it_left_here() -> None:
    """Of as many stays as are kept of a channel."""
    setting = Setting()
    stream = setting.open()
    feed(stream, seconds=19.0)  # As much as the ring has.
    units = stream.ring.reader(start="oldest").read(9999, 2**30).units
    splices = [setting.acked[len(setting.acked) * part // 4][1] for part in (1, 2, 3)]
    for epoch, progress in enumerate(splices, 2):
        setting.close(stream, "goes on elsewhere")
        tracks, grant = stream.tracks, setting.admit()
        stream_id = StreamId("alice", 1, epoch)
        stream = setting.hub.open(stream_id, grant, started_at=0.0, came_from="test")
        for track in tracks.values():
            stream.set_track(track)
        stream.append(units[: progress.packaged_seq + 1])
        setting.service.open(stream, progress.splice)
        until = splices[epoch - 1].packaged_seq + 1 if epoch < 4 else len(units)
        for start in range(progress.packaged_seq + 1, until, 10):
            stream.append(units[start : min(start + 10, until)])
    assert setting.service.statistics().ended == ENDED_RUNS_MAX
    stays = [
        [msn for msn, one in held.window.renditions["v0"].segments.items() if one.entry.complete]
        for held, _ in setting.service._held()
    ]
    now, *before = stays
    assert min(min(msns) for msns in before) < min(now)
    given: list[object] = []
    wanted = sorted({msn for msns in stays for msn in msns})
    for msn in (*wanted, wanted[-1] + 9, 0):
        setting.service.give_segment(stream.stream_id, "v0", msn, given.append)
    assert all(isinstance(body, list) for body in given[: len(wanted)])
    assert given[len(wanted) :] == [GONE, GONE], "never made; and of the first stay"


def test_what_is_kept_is_bounded() -> None:
    """All streams together; what has ended goes first."""
    setting = Setting(payload_bytes_max=2**20)
    first = setting.open("first")
    feed(first, seconds=60.0, payload_bytes=2_000)
    kept = setting.service.statistics()
    assert kept.evicted_early_total > 0
    assert kept.window_bytes < 2**20 + 100_000
    setting.service.cache.limit(CacheLimits(memory_bytes_max=1_000_000))
    setting.close(first, "over")
    second = setting.open("second")
    feed(second, seconds=10.0)
    assert setting.service.statistics().dropped_total > 0
    given: list[object] = []
    setting.service.give_segment(second.stream_id, "v0", 0, given.append)
    assert isinstance(given[0], list)


async def test_the_oldest_go_to_disk(tmp_path: Path) -> None:
    setting = Setting(payload_bytes_max=2**20, cache=CacheConfig(directory=tmp_path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting.service.run)
        disk = setting.service.disk
        assert disk is not None
        while not disk.usable:  # noqa: ASYNC110 - a thread
            await trio.sleep(0.01)
        stream = setting.open()
        stream.set_track(video_track(RATES["30"]))
        video = video_units(video_times(RATES["30"], 60.0), 2, payload_bytes=700)
        units = in_order((90_000, video))
        for start in range(0, len(units), 100):
            stream.append(units[start : start + 100])
            await trio.sleep(0.005)
        while not setting.service.statistics().spilled_total:  # noqa: ASYNC110 - as above
            await trio.sleep(0.01)
        window = setting.service._streams["alice"].window
        stored = [
            msn for msn in window.renditions["v0"].segments if window.stored_bytes_of("v0", msn)
        ]
        given: list[Sequence[bytes] | str] = []
        setting.service.give_segment(stream.stream_id, "v0", stored[0], given.append)
        with trio.fail_after(5):
            while not given:  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)
        assert sum(map(len, given[0])) == window.stored_bytes_of("v0", stored[0])
        assert setting.service.statistics().stored_bytes > 0
        nursery.cancel_scope.cancel()
    assert list(await trio.Path(tmp_path).iterdir()) == [], "it goes with the process"


def test_pops_hear_what_is_no_longer_held() -> None:
    """They would list what nobody has, where an origin has room for less than they have."""
    setting = Setting(payload_bytes_max=2**20)
    stream = setting.open()
    feed(stream, seconds=60.0, payload_bytes=2_000)
    told = [e for e in setting.of(stream) if isinstance(e, SegmentsListed)]
    windows = setting.service._streams["alice"].window.renditions
    assert {event.rendition for event in told} == set(windows)
    for name, window in windows.items():
        oldest = [event.oldest_msn for event in told if event.rendition == name]
        assert oldest == sorted(set(oldest))
        assert oldest[-1] in (next(iter(window.segments)), next(iter(window.segments)) - 1)


def test_of_a_channel_that_flaps_few_runs_are_kept() -> None:
    setting = Setting()
    for publication in range(1, 6):
        stream = setting.open(publication=publication)
        feed(stream, seconds=5.0)
        setting.close(stream, "over")
    assert setting.service.statistics().ended == ENDED_RUNS_MAX
    given: list[object] = []
    for publication in range(1, 6):
        run = StreamId("alice", publication)
        setting.service.give_segment(run, "v0", 0, given.append)
    assert [body == GONE for body in given] == [True, True, True, False, False]
