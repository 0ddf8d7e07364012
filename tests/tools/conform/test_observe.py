import time

import pytest
import trio

from edged.errors import RemoteProtocolError
from edged.tools.conform import observe as observe_module
from edged.tools.conform.observe import (
    Observation,
    RenditionLog,
    directives,
    edition_of,
    join,
    names_of,
    next_part,
    watch_ourselves,
    with_query,
)
from edged.tools.conform.report import judge
from edged.wire.m3u8_reader import read_media
from tests.tools.conform.test_probe import VOD
from tests.tools.conform.test_timeline import TEXT, log_of


def test_what_a_player_asks_for_next() -> None:
    inf = b"#EXTM3U\n#EXT-X-PART-INF:PART-TARGET=0.2\n#EXT-X-MEDIA-SEQUENCE:5\n"
    part = b'#EXT-X-PART:DURATION=0.2,URI="p"\n'
    assert next_part(read_media(VOD)) == (7, None)
    assert next_part(read_media(inf + b"#EXTINF:2,\na\n")) == (6, 0)
    assert next_part(read_media(inf + b"#EXTINF:2,\na\n" + part * 2)) == (6, 2)
    assert with_query("http://x/a", "b=1") == "http://x/a?b=1"
    assert with_query("http://x/a?c", "b=1") == "http://x/a?c&b=1"
    assert with_query("http://x/a", "") == "http://x/a"
    assert directives((7, None)) == "_HLS_msn=7"
    assert directives((7, 0)) == "_HLS_msn=7&_HLS_part=0"


def test_names_tell_one_from_another() -> None:
    assert names_of(["http://x/1/v0.m3u8", "http://x/1/a0.m3u8?b=1/2"]) == ["v0.m3u8", "a0.m3u8"]
    assert names_of(["http://x/1/v.m3u8", "http://x/2/v.m3u8"]) == ["1/v.m3u8", "2/v.m3u8"]
    alike = ["http://x/v.m3u8?a", "http://x/v.m3u8?b"]
    assert names_of(alike) == alike


def test_versions_share_what_they_have_in_common() -> None:
    log = log_of((0, TEXT), (1, TEXT + '#EXT-X-PART:DURATION=1,URI="e.1"\n'))
    first, second = (one.playlist for one in log.seen)
    assert all(a is b for a, b in zip(first.segments[:-1], second.segments[:-1], strict=True))
    assert len(first.segments[-1].parts) == 1
    assert len(second.segments[-1].parts) == 2
    assert first.control is second.control
    assert {one.answer.body for one in log.seen} == {b""}


def test_versions_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are dropped, and the report says so."""
    monkeypatch.setattr(observe_module, "VERSIONS_MAX", 3)
    log = log_of(*((float(n), TEXT) for n in range(3)))
    assert (len(log.seen), log.seen_before) == (3, 0)
    assert log.first is log.seen[0].playlist
    begun = log.first
    log = log_of(*((float(n), TEXT) for n in range(5)))
    assert ([one.answer.head_at for one in log.seen], log.seen_before) == ([2.0, 3.0, 4.0], 2)
    assert log.first == begun
    monkeypatch.setattr(observe_module, "LISTED_MAX", 9)
    assert len(log_of(*((float(n), TEXT) for n in range(5))).seen) == 2, "of 5 segments each"
    monkeypatch.setattr(observe_module, "LISTED_MAX", 1)
    assert len(log_of(*((float(n), TEXT) for n in range(5))).seen) == 2, "no pair is torn"


def test_where_something_stands(ours: Observation) -> None:
    log = RenditionLog(name="v", url="http://x/1/v?q")
    assert (log.at(7), log.at(0)) == ("v:7", "v")
    assert log.absolute("a") == "http://x/1/a"
    assert [log.has_video for log in ours.renditions] == [True, False]
    with pytest.raises(RemoteProtocolError, match="URI"):
        join("http://x/", "http://[a/")


def test_editions() -> None:
    """Told by how they begin and end, not by what is skipped in between."""
    more = TEXT + '#EXT-X-PART:DURATION=1,URI="e.1"\n'
    skipped = TEXT.replace("#EXTINF:2,\na\n#EXTINF:2,\nb\n", "#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n")
    ours, other, update = (read_media(text.encode()) for text in (TEXT, more, skipped))
    assert update.last != ours.last
    assert edition_of(ours) == edition_of(update) != edition_of(other)
    assert edition_of(read_media(b"#EXTM3U\n")) == 0


async def test_how_late_we_are_is_noted() -> None:
    seen = Observation(url="http://x/")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_ourselves, seen)
        await trio.sleep(0.01)
        time.sleep(0.12)  # noqa: ASYNC251 - a stall is what is looked for
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert 0.05 < seen.stall_s < 10


def test_limits_are_reported(good: Observation) -> None:
    good.stall_s = 0.0
    assert judge(good).limits == []
    good.stall_s = 0.3
    assert judge(good).limits == [
        "this host let us wait for up to 0.30 s: so much later may be in time"
    ]
    good.stall_s = 0.0
    good.main.seen_before = 7
    good.main.parts_before = 9
    first, second = judge(good).limits
    assert first.startswith("v0.m3u8: ")
    assert first.endswith(" versions are judged, the newest; 7 before are not kept")
    assert second.endswith(" parts are judged, the newest; 9 before are not kept")
