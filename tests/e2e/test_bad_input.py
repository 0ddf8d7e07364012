"""Peers that send what nobody should, at every door of a network: each is told, each ends alone.

A publisher and a viewer run throughout, and lose nothing. What each message says word by word is in
the unit tests of the module that says it; here it is that it reaches the peer and the log.
"""

import contextlib
import itertools
import os
import secrets
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
import trio

from edged.errors import PeerLostError
from edged.media.access_unit import AccessUnit
from edged.media.routing import OriginRow, OriginState, RoutingTable
from edged.media.stream import PriorityClass
from edged.media.track import Kind, Track
from edged.runtime.tls import MutualTls, TlsFiles
from edged.wire.backbone.messages import PROTO, Hello, make_hello_frame
from edged.wire.rtmp import (
    Closed,
    PublishAccepted,
    PublishRefused,
    RtmpClientSession,
    parse_url,
)
from edged.wire.rtmp import messages as m
from edged.wire.rtmp.chunks import ChunkWriter
from edged.wire.rtmp.handshake import ClientHandshake
from edged.wire.table import (
    FRAME_BYTES_MAX,
    OriginHello,
    PopHello,
    Snapshot,
    encode_file,
    encode_frame,
    table_crc,
)
from tests.e2e.clip import check_same, make_clip, read_packets, read_units
from tests.e2e.network import (
    Edged,
    LogLine,
    Network,
    open_edged,
    open_network,
    run_edged,
    take_ports,
    tls,
    wait_until,
)
from tests.e2e.publisher import OBS, Publisher, publish_clip
from tests.e2e.viewer import Viewer, fetch

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

HEALTHY_S = 12  # All that is bad is thrown meanwhile.
CHANNELS = ("one", "jumps", "back", "headless", "huge", "changes", "leaps", "quiet")
DAY_S = 86_400
BAD_FRAME = "frame of unknown kind 0xff"
CODEC_CHANGES = "codec changes: viewers pass a discontinuity, who cannot play it sees no more"
TOLD_S_MAX = 12.0  # The silence and handshake timeouts are below it.
STALL_S_MAX = 3.0  # Of a viewer, on a shared machine.


async def logged(edged: Edged, event: str, *words: str) -> LogLine:
    """Wait for a line of that event with all these words in it."""

    def find() -> list[LogLine]:
        return [line for line in edged.log(event) if all(word in str(line) for word in words)]

    try:
        await wait_until(lambda: bool(find()), within_s=TOLD_S_MAX)
    except trio.TooSlowError:
        raise AssertionError(f"no {event!r} with {words}: {edged.log(event)}") from None
    return find()[0]


async def talk(stream: trio.abc.Stream, data: bytes) -> bytes:
    """Send bytes; what is answered until the other end closes."""
    answer = b""
    with trio.fail_after(TOLD_S_MAX):
        try:
            await stream.send_all(data)
            while more := await stream.receive_some(65536):
                answer += more
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # Closed with our bytes unread.
    await trio.aclose_forcefully(stream)
    return answer


async def open_port(network: Network, port: str) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", network.ports[port])


# At the RTMP door, before anyone publishes.


async def garbage(network: Network) -> None:
    """It is not even the first byte of a handshake."""
    await talk(
        await open_port(network, "a.rtmp"), b"GET / HTTP/1.1\r\n" + secrets.token_bytes(4096)
    )
    line = await logged(network.hosts["a"].edged, "connection ended", "rtmp version is 71, not 3")
    assert "127.0.0.1:" in str(line["peer"])


async def half_a_handshake(network: Network) -> None:
    """One leaves in the middle, one stays there."""
    first = ClientHandshake(0.0, secrets.token_bytes).first()
    stream = await open_port(network, "a.rtmp")
    await stream.send_all(first[:700])
    await stream.aclose()
    await logged(network.hosts["a"].edged, "connection ended", "closed by peer")
    await talk(await open_port(network, "a.rtmp"), first[:1500])
    await logged(network.hosts["a"].edged, "connection ended", "no handshake within 5 s")


async def nesting_bomb(network: Network) -> None:
    """A connect whose object is a thousand deep."""
    stream = await open_port(network, "a.rtmp")
    handshake = ClientHandshake(0.0, secrets.token_bytes)
    await stream.send_all(handshake.first())
    while not handshake.done:
        answer, _ = handshake.receive_data(await stream.receive_some(65536))
        await stream.send_all(answer)
    body = m.encode_command("connect", 1, []) + b"\x03\x00\x01a" * 1000
    chunks = ChunkWriter().write(3, m.Message(m.COMMAND_AMF0, 0, 0, body))
    await talk(stream, b"".join(chunks))
    await logged(network.hosts["a"].edged, "connection ended", "amf0 nested deeper than 16")


async def wrong_key_and_app(network: Network) -> None:
    clip = make_clip(seconds=2)
    for url, code, words in (
        (network.publish_url("a", "one")[:-1] + "x", "unknown_key", "not valid"),
        (
            network.publish_url("a", "one").replace("/live/", "/die/"),
            "unknown_app",
            "no such application",
        ),
    ):
        with pytest.RaisesGroup(PeerLostError, flatten_subgroups=True) as caught:
            await publish_clip(clip, url)
        assert code in str(caught.value.exceptions[0])
        await logged(network.hosts["a"].edged, "publisher refused", code, words)
    for host in network.hosts.values():
        assert network.keys["one"][:-1] not in host.edged.log_text(), "a key is a secret"


# By publishers who were let in.


@contextlib.asynccontextmanager
async def publishing(network: Network, channel: str) -> AsyncIterator[Publisher]:
    """One that has been accepted, and has sent nothing yet."""
    place = parse_url(network.publish_url("a", channel))
    stream = await trio.open_tcp_stream(place.host, place.port)
    session = RtmpClientSession(now=trio.current_time(), entropy=os.urandom, url=place, options=OBS)
    publisher = Publisher(stream, session)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(publisher.listen)
        await publisher.flush()
        with trio.fail_after(TOLD_S_MAX):
            answer = await publisher.wait_for(PublishAccepted, PublishRefused, Closed)
        assert isinstance(answer, PublishAccepted), answer
        yield publisher
        session.close()  # In good order: nothing waits for it when the network ends.
        with contextlib.suppress(trio.BrokenResourceError):
            await publisher.flush()
        nursery.cancel_scope.cancel()


async def told(publisher: Publisher) -> str:
    """Why the server has closed, as it told the publisher."""
    with trio.fail_after(TOLD_S_MAX):
        await publisher.wait_for(Closed)
    return str([event for event in publisher.events if isinstance(event, Closed)])


async def huge_message(network: Network) -> None:
    """16 MiB are announced and begin to come."""
    async with publishing(network, "huge") as publisher:
        header = bytes([20]) + bytes(3) + b"\xff\xff\xff" + bytes([m.VIDEO]) + bytes([1, 0, 0, 0])
        await publisher._stream.send_all(header + bytes(4096))
        limit = "message of 16777215 bytes on chunk stream 20 exceeds 8388608"
        assert limit in await told(publisher)
        await logged(network.hosts["a"].edged, "publisher ended", "huge", limit)


async def no_sequence_header(network: Network) -> None:
    """Pictures and sound of which nobody knows the configuration: dropped, and said once."""
    tracks, units = read_units(make_clip(seconds=6))
    async with publishing(network, "headless") as publisher:
        session = publisher.session
        for track in tracks:
            session._tracks[track.track_id] = int(track.kind is Kind.AUDIO)
        for unit in units:
            session.send_unit(unit, _of(tracks, unit))
        await publisher.flush()
        line = await logged(network.hosts["a"].edged, "units dropped", "headless")
        assert "configuration" in str(line["reason"])
        assert not [e for e in publisher.events if isinstance(e, Closed)], "it may still send one"
        for track in tracks:
            session.send_track(track)
        for unit in units:
            session.send_unit(unit, _of(tracks, unit))
        await publisher.flush()
        await _is_playable(network, "headless")


async def codec_changes(network: Network) -> None:
    """From H.264 to HEVC in the middle of a run: it goes on behind a discontinuity, as a whole."""
    clips = make_clip(seconds=4), make_clip("hevc", seconds=4)
    (tracks, units), (later_tracks, later) = map(read_units, clips)
    shift = {track.track_id: 4 * track.timescale for track in later_tracks}
    later = [
        u.replaced(dts=u.dts + shift[u.track_id], pts=u.pts + shift[u.track_id]) for u in later
    ]
    viewer = Viewer(network.playback("b"), "changes")
    async with publishing(network, "changes") as publisher, trio.open_nursery() as nursery:
        await _send_all(publisher, tracks, units)
        await viewer.join()
        nursery.start_soon(lambda: viewer.watch(join=False))
        await _send_all(publisher, later_tracks, later)
        video = viewer.tracks["v0"]
        await wait_until(lambda: len(video.inits) == 2, within_s=TOLD_S_MAX)
        assert video.discontinuities == 1
        master = await fetch(network.playback("b"), "/live/changes/master.m3u8")
        assert b"hvc1" in master.body, master.body
        line = await logged(network.hosts["a"].edged, CODEC_CHANGES, "changes")
        assert (str(line["before"])[:4], str(line["after"])[:4]) == ("avc1", "hvc1")
        assert not [e for e in publisher.events if isinstance(e, Closed)]
        publisher.session.close()
        await publisher.flush()
        await wait_until(lambda: all(t.ended for t in viewer.tracks.values()), within_s=TOLD_S_MAX)
    assert video.discontinuities == 1
    for clip, pictures in zip(clips, viewer.packets_by_init("v0"), strict=True):
        check_same({"video": read_packets(clip)["video"]}, {"video": pictures})
    sound = [packet.digest for stretch in viewer.packets_by_init("a0") for packet in stretch]
    wanted = [packet.digest for packet in read_packets(clips[1])["audio"]]
    assert sound[-len(wanted) :] == wanted


async def timestamps_jump(network: Network) -> None:
    """An hour on, and then an hour back: each begins behind a discontinuity, and it goes on."""
    await _jumping(network, "jumps", [0, 3600, 0])


async def timestamps_go_back(network: Network) -> None:
    """To before the first one."""
    await _jumping(network, "back", [7200, 0])


async def _jumping(network: Network, channel: str, starts_s: Sequence[int]) -> None:
    tracks, units = read_units(make_clip(seconds=4))
    viewer = Viewer(network.playback("b"), channel)
    async with publishing(network, channel) as publisher, trio.open_nursery() as nursery:
        for number, start_s in enumerate(starts_s):
            await _send_all(publisher, tracks, _shifted(tracks, units, start_s))
            if not number:
                await viewer.join()
                nursery.start_soon(lambda: viewer.watch(join=False))
            await trio.sleep(0.5)
        await wait_until(
            lambda: all(
                track.discontinuities == len(starts_s) - 1 for track in viewer.tracks.values()
            ),
            within_s=TOLD_S_MAX,
        )
        assert not [e for e in publisher.events if isinstance(e, Closed)]
        nursery.cancel_scope.cancel()


async def audio_falls_silent(network: Network) -> None:
    """The sound stops, the picture goes on: so it does for viewers."""
    await _without_sound(network, "quiet", lambda unit, track: None)


async def audio_leaps_a_day(network: Network) -> None:
    """The sound's timestamps leap by 24 hours, those of the picture do not."""

    def leap(unit: AccessUnit, track: Track) -> AccessUnit:
        shift = DAY_S * track.timescale
        return unit.replaced(dts=unit.dts + shift, pts=unit.pts + shift)

    await _without_sound(network, "leaps", leap)


async def _without_sound(
    network: Network, channel: str, change: Callable[[AccessUnit, Track], AccessUnit | None]
) -> None:
    """From the third second on the sound is changed; the picture must come in real time."""
    clip = make_clip(seconds=10)
    tracks, units = read_units(clip)
    changed: list[AccessUnit] = []
    for unit in units:
        track = _of(tracks, unit)
        late = track.kind is Kind.AUDIO and unit.dts >= 3 * track.timescale
        found = change(unit, track) if late else unit
        changed += [found] if found is not None else []
    pictures = [unit for unit in changed if _of(tracks, unit).kind is Kind.VIDEO]
    viewer = Viewer(network.playback("b"), channel)
    async with publishing(network, channel) as publisher, trio.open_nursery() as nursery:

        async def send() -> None:
            began_at = trio.current_time()
            for track in tracks:
                publisher.session.send_track(track)
            for unit in changed:
                track = _of(tracks, unit)
                at = unit.dts / track.timescale
                await trio.sleep_until(began_at + (at if at < DAY_S / 2 else at - DAY_S))
                publisher.session.send_unit(unit, track)
                await publisher.flush()

        nursery.start_soon(send)
        await viewer.join()
        nursery.start_soon(lambda: viewer.watch(join=False))
        video = viewer.tracks["v0"]
        # All but what is still in the last part and segment.
        await wait_until(
            lambda: sum(a.duration_us for a in video.arrivals) >= 7_500_000, within_s=14.0
        )
        assert video.gaps == 0
        times = [arrival.at for arrival in video.arrivals]
        waits = [b - a for a, b in itertools.pairwise(times)]
        assert max(waits) < STALL_S_MAX, f"the picture stood for {max(waits):.1f} s"
        assert pictures
        nursery.cancel_scope.cancel()


def _of(tracks: Sequence[Track], unit: AccessUnit) -> Track:
    return next(track for track in tracks if track.track_id == unit.track_id)


def _shifted(tracks: Sequence[Track], units: Sequence[AccessUnit], by_s: int) -> list[AccessUnit]:
    shifts = {track.track_id: by_s * track.timescale for track in tracks}
    return [
        u.replaced(dts=u.dts + shifts[u.track_id], pts=u.pts + shifts[u.track_id]) for u in units
    ]


async def _send_all(
    publisher: Publisher, tracks: Sequence[Track], units: Sequence[AccessUnit]
) -> None:
    for track in tracks:
        publisher.session.send_track(track)
    for unit in units:
        publisher.session.send_unit(unit, _of(tracks, unit))
    await publisher.flush()


async def _is_playable(network: Network, channel: str) -> None:
    await Viewer(network.playback("b"), channel).join()


# At the other doors.


async def bad_requests(network: Network) -> None:
    """Viewers who speak no HTTP, or too much of it."""
    for data, status in (
        (b"\x16\x03\x01" + secrets.token_bytes(300), b" 400 "),
        (b"GET /live/one/master.m3u8 HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000, b" 431 "),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b" 414 "),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n" + bytes(99_999),
            b" 413 ",
        ),
    ):
        answer = await talk(await open_port(network, "b.http"), data)
        assert status in answer.split(b"\r\n")[0], answer[:200]
    path = "/live/one/v0.m3u8?_HLS_msn=99999999999999999999"
    assert (await fetch(network.playback("b"), path)).status in (400, 404)


def _context(network: Network, identity: str, *, server: bool = False) -> ssl.SSLContext:
    folder = network.folder / "certs"
    files = TlsFiles(
        ca=str(folder / "ca.pem"),
        certificate=str(folder / f"{identity}.pem"),
        key=str(folder / f"{identity}.key"),
    )
    mutual = MutualTls(files)
    return mutual.server if server else mutual.client


async def _secure(network: Network, port: str, identity: str) -> trio.SSLStream[trio.SocketStream]:
    context = _context(network, identity)
    return trio.SSLStream(await open_port(network, port), context, https_compatible=True)


async def wrong_certificates(network: Network) -> None:
    """Whoever says to be what its certificate does not: at IRS, and at the origin's backbone."""
    for identity in ("pop-a", "origin-origin", "irs-irs"):
        for hello in (
            PopHello(pop="a"),
            PopHello(pop="b"),
            OriginHello(origin="origin", incarnation=1, address="127.0.0.1:1"),
        ):
            role, name = _who(hello)
            if identity == f"{role}-{name}":
                continue
            certified = identity.replace("-", "/")
            words = f"certificate of {certified} may not speak for {role}/{name}"
            answer = await talk(await _secure(network, "irs", identity), encode_frame(hello))
            assert words.encode() in answer
            await logged(network.hosts["irs"].edged, "irs session ended", words)
    for identity, role, name in (
        ("origin-origin", "pop", "a"),
        ("irs-irs", "pop", "a"),
        ("pop-b", "pop", "a"),
        ("pop-a", "origin", "origin"),
        ("pop-a", "irs", "irs"),
        ("origin-origin", "origin", "origin"),
    ):
        answer = await talk(
            await _secure(network, "backbone", identity), _backbone_hello(role, name)
        )
        certified = identity.replace("-", "/")
        wrong = certified if role == "pop" else role
        assert b"identity" in answer, answer
        await logged(network.hosts["origin"].edged, "backbone session refused", wrong)
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname, anonymous.verify_mode = False, ssl.CERT_NONE
    for port in ("irs", "backbone"):
        stream = trio.SSLStream(await open_port(network, port), anonymous)
        assert await talk(stream, b"hello") == b""


async def bad_frames(network: Network) -> None:
    """The right certificates, and then what is no frame of ours, or far too large a one."""
    huge = struct.pack(">I", FRAME_BYTES_MAX + 1)
    irs, origin = network.hosts["irs"].edged, network.hosts["origin"].edged
    await talk(await _secure(network, "irs", "pop-a"), huge)
    await logged(irs, "irs session ended", "irs frame of", "exceeds")
    await talk(await _secure(network, "irs", "pop-a"), struct.pack(">I", 4) + b"\xc1\xc1\xc1\xc1")
    await logged(irs, "irs session ended", "irs frame of 4 bytes:")
    await talk(await _secure(network, "backbone", "pop-a"), secrets.token_bytes(64) + b"\xff" * 64)
    hello = _backbone_hello("pop", "a")
    await talk(await _secure(network, "backbone", "pop-a"), hello + b"\xff" * 64)
    await logged(origin, "backbone session refused", "frame of")
    await logged(origin, "backbone session ended", BAD_FRAME)


def _who(hello: PopHello | OriginHello) -> tuple[str, str]:
    return ("pop", hello.pop) if isinstance(hello, PopHello) else ("origin", hello.origin)


def _backbone_hello(role: str, name: str) -> bytes:
    """A control session's, of a shard that nobody is."""
    hello = Hello(
        proto=PROTO,
        role=role,
        name=name,
        shard=77,
        instance=secrets.randbits(62),
        purpose="control",
        priority=PriorityClass.PARTNER,
    )
    return bytes(make_hello_frame(hello))


async def corrupted_tables(network: Network) -> None:
    """A PoP that has one on disk, and an IRS that sends one: it goes on without.

    That IRS shows the certificate of a PoP at first; the origin that its table names at last has
    one of an IRS.
    """
    folder = network.folder
    await run_edged(folder, "cert", "host", "pop", "c")
    ports = take_ports(["irs", "fake", "rtmp", "http", "metrics"])
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    table = RoutingTable(
        epoch=1,
        version=1,
        issued=time.time(),
        ttl_s=30.0,
        lease_ttl_s=10.0,
        rows=(OriginRow("fake", at["fake"], OriginState.UP, 10),),
    )
    broken = bytearray(encode_file(table))
    broken[-1] ^= 1
    (folder / "c.table").write_bytes(broken)
    config = folder / "c.toml"
    config.write_text(
        f'[pop]\nname = "c"\n{tls("pop", "c")}'
        f'[irs_client]\naddresses = ["{at["irs"]}"]\ntable_file = "{folder}/c.table"\n'
        f'[ingest.rtmp]\nlisten = "{at["rtmp"]}"\n[playback]\nlisten = "{at["http"]}"\n'
        f'[[stream_keys.static]]\nchannel = "one"\nkey = "{network.keys["one"]}"\n'
        f'[admin]\nsocket = "{folder}/c.sock"\n[metrics]\nlisten = "{at["metrics"]}"\n'
    )
    wrong_crc = Snapshot(nonce=1, crc=table_crc(table) ^ 1, table=table)
    answers = [
        ("pop-a", b""),
        ("irs-irs", encode_frame(wrong_crc)),
        ("irs-irs", encode_frame(wrong_crc)[:-9] + bytes(9)),
        ("irs-irs", encode_frame(Snapshot(nonce=2, crc=table_crc(table), table=table))),
    ]

    async def pretend(stream: trio.SocketStream) -> None:
        """Be IRS, each time another; the last one stays."""
        identity, data = answers.pop(0) if len(answers) > 1 else answers[0]
        secure = trio.SSLStream(stream, _context(network, identity, server=True), server_side=True)
        with contextlib.suppress(trio.BrokenResourceError):
            await secure.do_handshake()
            await secure.send_all(data)
            with trio.move_on_after(1.0):
                while await secure.receive_some(65536):
                    pass

    async def pretend_origin(stream: trio.SocketStream) -> None:
        context = _context(network, "irs-irs", server=True)
        secure = trio.SSLStream(stream, context, server_side=True)
        with contextlib.suppress(trio.BrokenResourceError):
            await secure.do_handshake()
            await secure.receive_some(65536)
            await secure.send_all(_backbone_hello("origin", "fake"))
            while await secure.receive_some(65536):
                pass

    async with trio.open_nursery() as nursery:
        for handler, port in ((pretend, ports["irs"]), (pretend_origin, ports["fake"])):
            (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handler, [listener])
        async with open_edged(folder, "c", "run", "-c", str(config)) as pop:
            await logged(
                pop,
                "routing table on disk refused, starting without one",
                "c.table",
                "table file is corrupt",
            )
            await pop.wait_log("role started")
            await logged(pop, "irs session ended", "it is pop/a, no irs")
            await logged(pop, "pushed table refused", "crc")
            await logged(pop, "irs session ended", "irs frame of")
            await logged(pop, "backbone session refused", "its certificate says irs/irs")
            with pytest.RaisesGroup(PeerLostError, flatten_subgroups=True) as caught:
                await publish_clip(
                    make_clip(seconds=2), f"rtmp://{at['rtmp']}/live/{network.keys['one']}"
                )
            assert "no_route" in str(caught.value.exceptions[0])
            assert (await fetch(f"http://{at['http']}", "/live/one/master.m3u8")).status == 404
        nursery.cancel_scope.cancel()


async def ten_mistakes(network: Network) -> None:
    """All are told at once, each with its key, and a process with them does not start."""
    config = network.folder / "mistakes.toml"
    config.write_text(
        '[pop]\nname = "No Spaces"\nshard = -1\n'
        "[irs_client]\naddresses = []\nreconnect_s_max = 0\nunheard_of = 1\n"
        '[ingest.rtmp]\nlisten = "nowhere"\npublishers_max = 0\nmessage_bytes_max = "big"\n'
        "[playback]\nlisten = 8080\n[playback.hls]\nplaylist_s = 1.0\n"
        '[[stream_keys.static]]\nchannel = "one"\n'
    )
    out, errors = await run_edged(network.folder, "check", "-c", str(config), code=2)
    said = out + errors
    for key in (
        "pop.name",
        "pop.shard",
        "irs_client.addresses",
        "irs_client.reconnect_s_max",
        "irs_client.unheard_of",
        "ingest.rtmp.listen",
        "ingest.rtmp.publishers_max",
        "ingest.rtmp.message_bytes_max",
        "playback.listen",
        "playback.hls.playlist_s",
    ):
        assert key in said, f"{key} is not told:\n{said}"
    _, errors = await run_edged(network.folder, "run", "-c", str(config), code=2)
    assert "pop.name" in errors
    assert "Traceback" not in errors


BAD: tuple[Callable[[Network], Awaitable[None]], ...] = (
    garbage,
    half_a_handshake,
    nesting_bomb,
    wrong_key_and_app,
    huge_message,
    no_sequence_header,
    codec_changes,
    timestamps_jump,
    timestamps_go_back,
    audio_falls_silent,
    audio_leaps_a_day,
    bad_requests,
    wrong_certificates,
    bad_frames,
    corrupted_tables,
    ten_mistakes,
)


# What these send.
CLIPS = (("h264", 2), ("h264", 4), ("h264", 6), ("h264", 10), ("hevc", 4))


async def test_each_is_told_and_nobody_else_is_harmed() -> None:
    clip = make_clip(seconds=HEALTHY_S)
    for codec, seconds in CLIPS:  # Made in between it would keep this publisher silent for seconds.
        make_clip(codec, seconds=seconds)
    with trio.fail_after(90):
        async with open_network(channels=CHANNELS) as network, trio.open_nursery() as nursery:
            viewer = Viewer(network.playback("b"), "one")
            nursery.start_soon(publish_clip, clip, network.publish_url("a", "one"))
            await viewer.join()
            problems: dict[str, Exception] = {}

            async def throw(bad: Callable[[Network], Awaitable[None]]) -> None:
                try:
                    await bad(network)
                except Exception as error:
                    problems[bad.__name__] = error

            async with trio.open_nursery() as bad_ones:
                for bad in BAD:
                    bad_ones.start_soon(throw, bad)
                await viewer.watch(join=False)
            for track in viewer.tracks.values():
                track.check_flow(stall_s_max=STALL_S_MAX)
            check_same(read_packets(clip), viewer.packets())
            if problems:
                raise ExceptionGroup("; ".join(problems), list(problems.values()))
            _check_healthy(network)


def _check_healthy(network: Network) -> None:
    """No session of ours has ended, and the origin lost no unit of the healthy stream."""
    (ended,) = [
        line for line in network.hosts["a"].edged.log("publisher ended") if line["channel"] == "one"
    ]
    assert "publisher sent" in str(ended["reason"]), ended
    (closed,) = [
        line
        for line in network.hosts["origin"].edged.log("stream closed")
        if line["channel"] == "one"
    ]
    assert closed["units_lost"] == 0
    for host in network.hosts.values():
        ended_sessions = host.edged.log("backbone session ended")
        # Those of `bad_frames`, which were ended for that.
        assert {line["reason"] for line in ended_sessions} <= {BAD_FRAME}, ended_sessions
        assert not host.edged.log("service failed, begun anew")
