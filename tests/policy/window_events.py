"""Packaged events made by hand, for the windows' tests."""

import msgspec

from edged.media.parts import InitSegment, PackagedEvent, Part, Rendition, SegmentEnded
from edged.media.stream import StreamId
from edged.media.track import Kind
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits

DIGEST = "0123456789abcdef"
OTHER_DIGEST = "f" * 16
PARTS = 5  # Of a segment: 400 ms each.


def rendition(name: str = "v0", **changes: object) -> Rendition:
    made = Rendition(
        name=name,
        kind=Kind.AUDIO if name.startswith("a") else Kind.VIDEO,
        timescale=1000,
        codec_string="mp4a.40.2" if name.startswith("a") else "avc1.64001f",
        part_target_us=400_000,
        target_duration_s=4,
    )
    return msgspec.structs.replace(made, **changes)


def init(name: str = "v0", digest: str = DIGEST, size: int = 10) -> InitSegment:
    return InitSegment(rendition=name, digest=digest, data=bytes(size))


def part(msn: int, index: int, name: str = "v0", **changes: object) -> Part:
    made = Part(
        rendition=name,
        msn=msn,
        index=index,
        tfdt=msn * 2000 + index * 400,
        duration=400,
        wallclock_us=1_700_000_000_000_000 + (msn * 2000 + index * 400) * 1000,
        init_digest=DIGEST,
        payload=b"%03d.%d" % (msn, index) * 20,
        independent=index == 0,
        next_msn=msn,
        next_index=index + 1,
    )
    return msgspec.structs.replace(made, **changes)


def ended(msn: int, name: str = "v0", parts: int = PARTS, duration: int = 2000) -> SegmentEnded:
    return SegmentEnded(rendition=name, msn=msn, parts=parts, duration=duration)


def whole(msn: int, name: str = "v0", **changes: object) -> list[PackagedEvent]:
    """A segment of five parts of 100 bytes."""
    parts: list[PackagedEvent] = [part(msn, index, name, **changes) for index in range(PARTS)]
    return [*parts, ended(msn, name)]


def make_window(
    *events: PackagedEvent | list[PackagedEvent],
    names: tuple[str, ...] = ("v0",),
    limits: WindowLimits | None = None,
) -> StreamWindow:
    window = StreamWindow(StreamId(channel="ch", publication=0xAB), limits)
    for name in names:
        window.add(rendition(name))
        window.add(init(name))
    feed(window, *events)
    return window


def feed(window: StreamWindow, *events: PackagedEvent | list[PackagedEvent]) -> None:
    for event in events:
        for one in event if isinstance(event, list) else [event]:
            window.add(one)
