import time

import pytest
import trio

from edged.errors import RemoteProtocolError
from edged.tools.conform import observe as observe_module
from edged.tools.conform.client import HttpClient
from edged.tools.conform.observe import (
    Follower,
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
from tests.tools.conform.test_client import serving
from tests.tools.conform.test_probe import VOD, http
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


ODD_HEAD = """#EXTM3U
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES
#EXT-X-PART-INF:PART-TARGET=0.2
#EXT-X-MAP:URI="i"
"""
ODD_HINT = '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="1.0"\n'


def odd(*durations: float) -> str:
    parts = (
        f'#EXT-X-PART:DURATION={duration},URI="0.{n}"\n' for n, duration in enumerate(durations)
    )
    return ODD_HEAD + "".join(parts)


async def fetched_of(*versions: str) -> tuple[list[str], RenditionLog]:
    """What is asked for of a stream that is followed through these versions, and its log."""
    asked: list[str] = []
    left = [text.encode() for text in (versions[0], *versions)]  # It is asked for the first twice.

    def answers(target: str) -> bytes | None:
        asked.append(target)
        if "m3u8" in target:
            return left.pop(0) if len(left) > 1 else left[0]
        return b"1"

    async with serving(http(answers)) as (url, _):
        seen = Observation(url=f"{url}/v.m3u8")
        client = HttpClient(insecure=True)
        try:
            follower = Follower(client, seen)
            await follower.begin()
            await follower.follow(seen.main, trio.current_time() + 30)
        finally:
            await client.close()
    return [target.removeprefix("/") for target in asked if "m3u8" not in target], seen.main


async def test_what_tells_why_parts_are_odd_is_fetched() -> None:
    whole = (0.2, 0.2, 0.08, 0.2, 0.2)
    end = "#EXT-X-ENDLIST\n"
    asked, _ = await fetched_of(odd(*whole) + ODD_HINT, odd(*whole, 0.2) + end)
    # The short one with the one after it; what was hinted; and what no hint announced.
    assert sorted(asked) == ["0.2", "0.3", "0.5", "1.0", "i"]
    asked, _ = await fetched_of(odd(0.2, 0.2, 0.3) + ODD_HINT, odd(0.2, 0.2, 0.3, 0.2) + end)
    assert sorted(asked) == ["0.2", "0.3", "1.0", "i"]
    asked, _ = await fetched_of(odd(0.2, 0.2, 0.2) + end)
    assert asked == ["i"], "nothing is odd"


async def test_what_is_fetched_without_a_hint_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe_module, "UNHINTED_MAX", 3)
    parts = odd(*[0.1] * 9) + "#EXT-X-ENDLIST\n"
    asked, log = await fetched_of(parts)
    assert sorted(asked) == ["0.0", "0.1", "0.2", "i"]
    assert log.unhinted == 3
