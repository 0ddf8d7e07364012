from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from h2.connection import H2Connection
from msgspec.structs import replace

from edged.errors import PeerLostError, RemoteProtocolError
from edged.tools.conform import probe as probe_module
from edged.tools.conform.items_media import in_time
from edged.tools.conform.observe import Observation
from edged.tools.conform.probe import _left, _unlisted, observe, version_of
from edged.tools.conform.report import judge
from tests.tools.conform.conftest import RUNS_MAX
from tests.tools.conform.h2_server import answer_of, h2_server
from tests.tools.conform.ranged_stream import RangedStream
from tests.tools.conform.test_client import Server, secure, serving
from tests.tools.conform.test_timeline import log_of

Answers = Callable[[str], bytes | None]  # From the target; None: 404.
VOD = (
    b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:5\n#EXTINF:2,\na.ts\n"
    b"#EXTINF:2,\nb.ts\n"
)
BROKEN = b"#EXTM3U\n#EXTINF:x,\n"
MASTER = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv.m3u8\n"


def http(answers: Answers) -> Server:
    """HTTP/1.1 as far as it is needed here."""

    async def serve(stream: trio.abc.Stream) -> None:
        inbox = b""
        while True:
            while b"\r\n\r\n" not in inbox:
                data = await stream.receive_some()
                if not data:
                    return
                inbox += data
            head, _, inbox = inbox.partition(b"\r\n\r\n")
            body = answers(head.split(b" ")[1].decode())
            status = b"200 OK" if body is not None else b"404 Not Found"
            await stream.send_all(
                b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s"
                % (status, len(body or b""), body or b"")
            )

    return serve


async def test_ours(ours: Observation) -> None:
    """All that there is to be seen of a stream was looked at."""
    assert [log.name for log in ours.renditions] == ["v0.m3u8", "a0.m3u8"]
    assert ours.multivariant is not None
    assert ours.broken == []
    assert {"old", "far", "beyond", "skip", "unknown", "once", "again"} <= set(ours.probes)
    for log in ours.renditions:
        assert len(log.inits) == 1
        assert len(log.seen) > 10, "a version for each part"
        assert len(log.segments) == 2
        hinted = [part for part in log.parts.values() if part.hinted]
        assert len(hinted) > 10
        assert all(part.answer.status == 200 for part in log.parts.values())
        assert log.refused == []


async def test_an_ordinary_stream_without_parts() -> None:
    asked: list[str] = []

    def answer(target: str) -> bytes | None:
        asked.append(target)
        return VOD if target.startswith("/live.m3u8") else None

    async with serving(http(answer)) as (base, _):
        seen = await observe(f"{base}/live.m3u8", 1.5)
    assert seen.multivariant is None
    assert asked.count("/live.m3u8") >= 2, "it is polled, as it does not block"
    assert seen.main.inits == {}
    report = judge(seen)
    statuses = {verdict.number: verdict.status for verdict in report.verdicts}
    assert {statuses[number] for number in (1, 2, 3, 11, 14, 16, 22, 28, 30)} == {"not seen"}
    assert not report.conforms, "HTTP/2, gzip, dates: it lacks what binds"


async def test_a_stream_that_is_over() -> None:
    async with serving(
        http(lambda target: VOD + b"#EXT-X-ENDLIST\n" if "m3u8" in target else None)
    ) as (
        base,
        _,
    ):
        with trio.fail_after(5):
            seen = await observe(f"{base}/live.m3u8", 1.0)
    (five,) = [verdict for verdict in judge(seen).verdicts if verdict.number == 5]
    assert five.status == "pass"


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (lambda _: None, "status 404"),
        (lambda _: b"<html>", "the first line is"),
        (lambda target: MASTER if "master" in target else None, "v.m3u8: status 404"),
        (lambda target: MASTER if "master" in target else BROKEN, "line 2: EXTINF"),
        (lambda _: MASTER.replace(b"v.", b"v1.") + b"".join(
            b"#EXT-X-STREAM-INF:BANDWIDTH=1\n%d.m3u8\n" % n for n in range(12)), "limit 12"),
    ],
)  # fmt: skip
async def test_what_is_no_stream_is_refused(answers: Answers, told: str) -> None:
    async with serving(http(answers)) as (base, _):
        with pytest.raises(RemoteProtocolError, match=told):
            await observe(f"{base}/master.m3u8", 1.0)


async def test_nobody_is_there() -> None:
    with pytest.raises(PeerLostError):
        await observe("http://127.0.0.1:1/master.m3u8", 1.0)


async def test_what_breaks_under_way_is_noted() -> None:
    count = 0

    def answer(target: str) -> bytes | None:
        nonlocal count
        count += target == "/live.m3u8"
        return VOD if count < 3 else BROKEN

    async with serving(http(answer)) as (base, _):
        seen = await observe(f"{base}/live.m3u8", 3.0)
    assert any("EXTINF 'x'" in problem for problem in seen.broken)
    assert not judge(seen).conforms


async def test_a_server_that_hangs_is_not_taken_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "MORE_S_MAX", 0.5)
    blocking = VOD.replace(b"#EXTINF", b"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n#EXTINF", 1)
    plain = http(lambda _: blocking)

    async def serve(stream: trio.abc.Stream) -> None:
        """Whoever asks to be blocked is so for ever."""
        asked = bytes(await stream.receive_some())
        if b"_HLS_" in asked:
            await trio.sleep_forever()
        await plain(Replayed(stream, asked))

    async with serving(serve) as (base, _):
        seen = await observe(f"{base}/live.m3u8", 0.5)
    assert "left something unanswered" in seen.broken[-1]
    assert not judge(seen).conforms


class Replayed(trio.abc.Stream):
    """A stream of which the first bytes have been looked at."""

    def __init__(self, stream: trio.abc.Stream, first: bytes) -> None:
        self._stream, self._first = stream, first

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        asked = bytes(await self._stream.receive_some(max_bytes))
        if b"_HLS_" in asked:
            await trio.sleep_forever()
        return asked

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@pytest.mark.parametrize("uri", ["p\u00e4rt.m3u8", "http://[abc/", "http://a:99999/", "ftp://a/b"])
async def test_odd_addresses_are_asked_for_or_named(uri: str) -> None:
    """None ends in anything but an error of ours."""
    master = f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{uri}\n".encode()
    async with serving(http(lambda target: master if "master" in target else None)) as (base, _):
        with pytest.raises(RemoteProtocolError):
            await observe(f"{base}/master.m3u8", 1.0)


@pytest.mark.parametrize("lengths", [False, True], ids=["rest", "lengths"])
async def test_parts_that_are_byte_ranges(lengths: bool) -> None:
    """A hint without a length asks for all that is to come of a segment, part by part."""
    for _ in range(RUNS_MAX):
        stream = RangedStream(lengths=lengths)
        async with serving(stream.serve) as (base, _):
            seen = await observe(f"{base}/live.m3u8", 2.5)
        if not in_time(seen):  # Else of the machine.
            break
    assert seen.broken == []
    ranged = [piece for piece in seen.main.parts.values() if piece.hinted]
    assert len(ranged) > 8
    assert all(piece.place[1] is not None and piece.size for piece in ranged)
    found = {verdict.number: verdict for verdict in judge(seen).verdicts}
    for number in (2, 16, 17, 18, 21, 23, 25):
        assert found[number].status == "pass", found[number]
    rests = {asked for asked in stream.asked if asked[1].endswith("-9007199254740991")}
    assert bool(rests) is not lengths
    assert len(rests) < 12, "the rest of a segment is asked for once, not for each part"


async def test_ranges_that_drip_are_found() -> None:
    async with serving(RangedStream(lengths=True, drips=True).serve) as (base, _):
        seen = await observe(f"{base}/live.m3u8", 1.0)
    seen.stall_s = 0.0  # What this machine let us wait for would excuse it.
    found = {verdict.number: verdict for verdict in judge(seen).verdicts}
    assert found[23].status == "fail"
    assert " began 0." in found[23].details[0]
    assert "bytes " in found[23].details[0]


@pytest.mark.parametrize(("more", "status"), [(0, "pass"), (1, "fail")])
async def test_delta_updates(more: int, status: str) -> None:
    async with serving(RangedStream(lengths=True, skips=more).serve) as (base, _):
        seen = await observe(f"{base}/live.m3u8", 1.5)
    found = {verdict.number: verdict for verdict in judge(seen).verdicts}
    assert found[26].status == status, found[26]
    assert found[12].status == found[27].status == "pass"
    if more:
        assert "segments are skipped, " in found[26].details[0]


async def test_all_over_http_2(tmp_path: Path) -> None:
    """Of a server that speaks nothing else."""

    def respond(h2: H2Connection, number: int, target: str) -> None:
        there = target.startswith("/live.m3u8")
        answer_of(VOD if there else b"", 200 if there else 404)(h2, number, target)

    async with serving(h2_server(respond), secure(tmp_path, "h2")) as (base, _):
        seen = await observe(f"{base}/live.m3u8", 1.0, insecure=True)
    found = {verdict.number: verdict for verdict in judge(seen).verdicts}
    assert found[31].status == "pass"
    assert {answer.version for answer in seen.probes.values()} == {"HTTP/2"}


async def test_versions_that_race_are_asked_for_again() -> None:
    """The same version packed and not, and skipped and not, though it changes each 0.2 s."""
    async with serving(RangedStream(lengths=True).serve) as (base, _):
        seen = await observe(f"{base}/live.m3u8", 2.0)
    assert version_of(seen.probes["gzip"]) == version_of(seen.probes["identity"]) is not None
    names = ("skip", "skip v2", "skip entire")
    assert len({version_of(seen.probes[name]) for name in names}) == 1


async def test_a_server_that_never_agrees_with_itself_is_asked_a_few_times() -> None:
    count = 0

    def answer(target: str) -> bytes | None:
        nonlocal count
        count += target.startswith("/live.m3u8")
        return VOD + b"#EXTINF:2,\nc%d.ts\n" % count if target.startswith("/live.m3u8") else None

    async with serving(http(answer)) as (base, _):
        with trio.fail_after(5):
            seen = await observe(f"{base}/live.m3u8", 1.0)
    assert version_of(seen.probes["gzip"]) != version_of(seen.probes["identity"])
    assert count < 50


def test_what_is_no_playlist_has_no_version(ours: Observation) -> None:
    plain = ours.probes["plain"]
    assert version_of(plain) is not None
    assert version_of(replace(plain, status=404)) is None
    assert version_of(replace(plain, body=b"<html>")) is None


LEAVING = """#EXTM3U
#EXT-X-TARGETDURATION:2
#EXT-X-PART-INF:PART-TARGET=1
#EXT-X-MEDIA-SEQUENCE:{first}
"""


def leaving(first: int, parts_from: int) -> bytes:
    """Segments of 2 s from `first` to 9, with parts from another on."""
    text = LEAVING.format(first=first)
    for msn in range(first, 10):
        if msn >= parts_from:
            text += f'#EXT-X-PART:DURATION=2,URI="p{msn}"\n'
        text += f"#EXTINF:2,\ns{msn}\n"
    return text.encode()


async def ask_for_what_left(*gone: str) -> tuple[list[str], Observation]:
    """A playlist that loses its first segment, and the parts of two; `gone` is not to be had."""
    asked: list[str] = []
    begun_at = trio.current_time()

    def answer(target: str) -> bytes | None:
        asked.append(target)
        if target.startswith("/live.m3u8"):
            later = trio.current_time() > begun_at + 1
            return leaving(1, 7) if later else leaving(0, 5)
        return None if target.removeprefix("/") in gone else b"media"

    async with serving(http(answer)) as (base, _):
        seen = await observe(f"{base}/live.m3u8", 2.5)
    return asked, seen


async def test_what_is_listed_no_more_is_asked_for() -> None:
    asked, seen = await ask_for_what_left()
    assert {"/s0", "/p5"} <= set(asked)
    assert [answer.status for answer in seen.main.left] == [200]
    ((answer, since_s),) = seen.main.unlisted
    assert answer.status == 200
    assert 0 < since_s < 2.5
    statuses = {verdict.number: verdict.status for verdict in judge(seen).verdicts}
    assert statuses[20] == "pass"


async def test_what_is_gone_too_soon_is_found() -> None:
    _, seen = await ask_for_what_left("s0", "p5")
    found = {verdict.number: verdict for verdict in judge(seen).verdicts}
    assert [found[number].status for number in (19, 20)] == ["fail"] * 2
    assert "p5: status 404, " in found[19].details[0]
    assert "s0: status 404, it has just left" in found[20].details[0]


def test_what_may_have_gone_is_not_asked_for() -> None:
    """A segment after its duration and the playlist's, 22 s; a part after 3 x TD; and a gap."""
    log = log_of(*((at, leaving(*form).decode()) for at, form in ((0, (0, 5)), (1, (1, 7)))))
    first = log.first.segments[0]
    assert [_left(log, now) for now in (2.0, 21.9, 22.0)] == [first, first, None]
    assert [_unlisted(log, now) is not None for now in (2.0, 5.9, 6.0)] == [True, True, False]
    first.gap = True
    assert _left(log, 2.0) is None


async def test_the_multivariant_playlist_is_taken_as_it_is_at_last() -> None:
    count = 0

    def answer(target: str) -> bytes | None:
        nonlocal count
        if "master" not in target:
            return VOD
        count += 1
        return MASTER.replace(b"=1", b"=%d" % count)

    async with serving(http(answer)) as (base, _):
        seen = await observe(f"{base}/master.m3u8", 0.5)
    assert seen.multivariant is not None
    told = [variant.attributes["BANDWIDTH"] for variant in seen.multivariant.variants]
    assert told == [str(count)]
    assert count > 1
