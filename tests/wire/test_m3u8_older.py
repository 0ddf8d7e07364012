"""A playlist of hours: the text is as if made anew, and an update costs what it always did."""

import time

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.stream import StreamId
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from edged.wire.m3u8 import (
    BLOCK_SEGMENTS,
    OlderText,
    render_blocks,
    render_media_playlist,
)
from tests.policy.window_events import (
    DIGEST,
    OTHER_DIGEST,
    feed,
    init,
    make_window,
    part,
    rendition,
    whole,
)

RUN = StreamId(channel="demo", publication=1)


def text(window: StreamWindow, older: OlderText, *, delta: bool = False) -> bytes:
    playlist = window.media_playlist("v0")
    assert playlist is not None
    return b"".join(block.text for block in render_blocks(playlist, older, delta=delta))


@hypothesis.given(
    first=st.integers(0, 3 * BLOCK_SEGMENTS),
    listed=st.integers(10, 3 * BLOCK_SEGMENTS),
    changes=st.sets(st.integers(0, 6 * BLOCK_SEGMENTS), max_size=5),
    lost=st.sets(st.integers(0, 6 * BLOCK_SEGMENTS), max_size=5),
)
@hypothesis.settings(max_examples=25, deadline=None)
def test_what_is_kept_is_what_would_be_made_anew(
    first: int, listed: int, changes: set[int], lost: set[int]
) -> None:
    limits = WindowLimits(playlist_s=2.0 * listed, payload_bytes_max=2**30)
    window, older = StreamWindow(RUN, limits), OlderText()
    feed(window, rendition(), init())
    digest = DIGEST
    for msn in range(first, first + listed + 2 * BLOCK_SEGMENTS):
        if msn in lost:
            continue
        if msn in changes:
            digest = OTHER_DIGEST if digest == DIGEST else DIGEST
            feed(window, init(digest=digest))
        feed(window, *whole(msn, init_digest=digest, discontinuity=msn in changes))
        if msn % 3 == 0:
            playlist = window.media_playlist("v0")
            assert playlist is not None
            assert text(window, older) == render_media_playlist(playlist)
            whole_text = text(window, OlderText())
            assert text(window, older, delta=True) == render_media_playlist(playlist, delta=True)
            assert whole_text.count(b"#EXTINF") == len(playlist.segments)
            assert whole_text.count(b"#EXT-X-PROGRAM-DATE-TIME") == len(playlist.segments)


def long_window(hours: float) -> StreamWindow:
    limits = WindowLimits(playlist_s=3600 * hours, retention_s=1.0, payload_bytes_max=2**40)
    window = make_window(limits=limits)
    for msn in range(int(1800 * hours) + 10):
        feed(window, *whole(msn))
    feed(window, part(int(1800 * hours) + 10, 0))
    return window


def best_s(work: object) -> float:
    assert callable(work)
    times = []
    for _ in range(30):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def test_an_update_costs_the_same_whatever_the_playlists_length() -> None:
    seconds, sizes = [], []
    for hours in (0.05, 2.0):  # 90 and 3,600 segments.
        window, older = long_window(hours), OlderText()
        seconds.append(best_s(lambda w=window, o=older: text(w, o, delta=True)))
        sizes.append(len(text(window, older, delta=True)))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)  # Longer numbers.
    assert seconds[1] < 2 * seconds[0] + 20e-6, [f"{s * 1e6:.0f} us" for s in seconds]


def test_only_what_is_listed_is_kept() -> None:
    limits = WindowLimits(playlist_s=400.0, retention_s=1.0, payload_bytes_max=2**30)
    window, older = make_window(limits=limits), OlderText()
    for msn in range(20 * BLOCK_SEGMENTS):
        feed(window, *whole(msn))
        text(window, older)
        assert len(older._blocks) <= 200 // BLOCK_SEGMENTS + 1
