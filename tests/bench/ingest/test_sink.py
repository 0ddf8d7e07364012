"""The C sink understands edged's backbone: driven here by the core that a PoP uses."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from edged.media.access_unit import AccessUnit
from edged.media.gop_ring import GopRing
from edged.media.ring_batch import RingBatch
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import Codec, CodecConfig, Track
from edged.runtime.tls import MutualTls, TlsFiles, peer_identity
from edged.wire.backbone.events import Expected, MessageReceived, PeerAccepted
from edged.wire.backbone.link import BackboneLink
from edged.wire.backbone.messages import (
    PROTO,
    DirectoryDelta,
    Heartbeat,
    Hello,
    Message,
    Purpose,
    StreamAccepted,
    StreamOpened,
    UnitsAcked,
)
from tests.bench.ingest import edged_server
from tests.bench.ingest.bench import Port
from tests.bench.ingest.measure import Arrived
from tests.bench.ingest.native import build
from tests.bench.ingest.processes import Process
from tests.conftest import require, require_found

pytestmark = pytest.mark.e2e
STEP_S_MAX = 10.0
T = TypeVar("T", bound=Message)
MAGIC = b"\xc5\xed\x9e\xd0\xbe\xac\xf1\x95"
TRACK = Track(
    track_id=1,
    codec=Codec.H264,
    timescale=90_000,
    config=CodecConfig(codec=Codec.H264, record=b"record", codec_string="avc1.64001f"),
)


def digits(count: int, value: int) -> bytes:
    return bytes(0x80 | value >> 7 * place & 0x7F for place in reversed(range(count)))


def marked(size: int, stream: int, unit: int, sent_ns: int) -> bytes:
    marker = MAGIC + digits(2, stream) + digits(5, unit) + digits(9, sent_ns)
    return bytes(size - len(marker)) + marker


class Source:
    """A `UnitSource` over a ring of its own."""

    ended = None

    def __init__(self) -> None:
        self.ring = GopRing(bytes_max=2**30, duration_us_max=2**40)
        self._cursor = self.ring.reader(start="oldest")

    def add(self, payload: bytes) -> None:
        seq = self.ring.next_seq
        unit = AccessUnit(
            track_id=1,
            seq=seq,
            config_id=0,
            pts=seq * 3000,
            dts=seq * 3000,
            wallclock_us=seq * 33_333,
            payload=payload,
            random_access=seq % 60 == 0,
        )
        self.ring.append(unit)

    def read(self, units_max: int, bytes_max: int, /) -> RingBatch:
        return self._cursor.read(units_max, bytes_max)

    @property
    def lag_units(self) -> int:
        return self._cursor.lag_units

    def track(self, track_id: int, config_id: int) -> Track:
        return TRACK


class Pop:
    """A PoP's end of one session, on a blocking socket."""

    def __init__(self, sock: socket.socket, purpose: Purpose, priority: PriorityClass) -> None:
        self.sock = sock
        hello = Hello(
            proto=PROTO,
            role="pop",
            name="bench",
            shard=1,
            instance=2,
            purpose=purpose,
            priority=priority,
        )
        expected = Expected(roles=frozenset({"origin"}), name=edged_server.ORIGIN)
        self.link = BackboneLink(hello, expected, client=True, now=time.monotonic())
        self.messages: list[Message] = []
        self.accepted = False

    def flush(self) -> None:
        while chunks := self.link.data_to_send(2**20):
            self.sock.sendall(b"".join(chunks))

    def step(self) -> None:
        self.flush()
        for event in self.link.receive_data(self.sock.recv(65536), time.monotonic()):
            if isinstance(event, MessageReceived):
                self.messages.append(event.message)
            self.accepted |= isinstance(event, PeerAccepted)
        self.flush()

    def await_message(self, kind: type[T]) -> T:
        deadline = time.monotonic() + STEP_S_MAX
        while time.monotonic() < deadline:
            for message in self.messages:
                if isinstance(message, kind):
                    self.messages.remove(message)
                    return message
            self.step()
        pytest.fail(f"no {kind.__name__} came")


@contextlib.contextmanager
def running_sink(directory: Path, *, tls: bool) -> Iterator[tuple[Process, int]]:
    programs = build(directory)
    if tls:
        require_found("OpenSSL's headers", found=programs.sink_has_tls)
    edged_server.write_sink_files(directory, tls=tls)
    arguments: list[str | Path] = [programs.sink, "backbone", directory, *(["tls"] if tls else [])]
    with Process(arguments, core=None, log=directory / "log") as sink:
        yield sink, sink.hear(Port).port


@contextlib.contextmanager
def connected(
    port: int, directory: Path, *, tls: bool, purpose: Purpose = "media"
) -> Iterator[Pop]:
    with socket.create_connection(("127.0.0.1", port), STEP_S_MAX) as plain:
        sock: socket.socket = plain
        if tls:
            files = TlsFiles(
                ca=str(directory / "ca.pem"),
                certificate=str(directory / f"pop-{edged_server.POP}.pem"),
                key=str(directory / f"pop-{edged_server.POP}.key"),
            )
            sock = secure = MutualTls(files).client.wrap_socket(plain)
            assert peer_identity(secure).uri == f"edged://origin/{edged_server.ORIGIN}"
            assert secure.version() == "TLSv1.3"
        priority = PriorityClass.BASIC if purpose == "media" else PriorityClass.PARTNER
        pop = Pop(sock, purpose, priority)
        while not pop.accepted:
            pop.step()
        yield pop
        sock.close()


def opened(pop: Pop, number: int, source: Source) -> int:
    stream_no = pop.link.sender.reserve()
    pop.link.send(
        StreamOpened(
            stream_no=stream_no,
            stream_id=StreamId(channel=f"bench{number}", publication=2**40 + number, home_epoch=3),
            grant=Grant(channel=f"bench{number}"),
            tracks=[TRACK],
            first_seq=0,
        )
    )
    assert pop.await_message(StreamAccepted) == StreamAccepted(stream_no, -1)
    pop.link.sender.open_units(stream_no, source, {1: 0})
    return stream_no


@pytest.mark.parametrize("tls", [False, True])
def test_units_arrive_whole_and_are_acked(tmp_path: Path, tls: bool) -> None:
    require("gcc")
    with running_sink(tmp_path, tls=tls) as (sink, port), connected(port, tmp_path, tls=tls) as pop:
        begin = time.monotonic_ns()
        sink.say(f"window {begin} {begin + 10**12}")
        time.sleep(0.05)  # The sink reads orders between two events.
        sources = [Source(), Source()]
        numbers = [opened(pop, n, source) for n, source in enumerate(sources)]
        for unit, size in enumerate([24, 65_536, 65_537, 300_000, 2**20]):
            for stream, source in enumerate(sources):
                source.add(marked(size, stream, unit, begin + 1000))
        sources[1].add(b"short")
        for flow in list(pop.link.sender._flows.values()):
            pop.link.sender.wake(flow)
        wanted = {numbers[0]: 4, numbers[1]: 5}
        acked: dict[int, int] = {}
        while acked != wanted:
            for ack in pop.await_message(UnitsAcked).acks:
                assert (ack.home_epoch, ack.packaged_seq) == (3, ack.received_seq)
                acked[ack.stream_no] = ack.received_seq
        sink.say("report")
        arrived = sink.hear(Arrived)
        assert arrived.units == [5, 5]
        assert (arrived.disordered, arrived.unmarked, arrived.delay_us.count) == (0, 1, 10)


def test_credit_is_granted_as_units_are_consumed(tmp_path: Path) -> None:
    require("gcc")
    with (
        running_sink(tmp_path, tls=False) as (_, port),
        connected(port, tmp_path, tls=False) as pop,
    ):
        source = Source()
        opened(pop, 0, source)
        flow = next(iter(pop.link.sender._flows.values()))
        for _ in range(100):  # 100 MiB through a window of 16, and a session's of 64.
            source.add(bytes(2**20))
            pop.link.sender.wake(flow)
            pop.flush()
        while pop.link.sender.statistics().items_sent < 100:
            pop.step()
        while pop.await_message(UnitsAcked).acks[0].received_seq < 99:
            pass
        assert flow.limit > 64 * 2**20


@pytest.mark.parametrize("tls", [False, True])
def test_a_control_session_gets_heartbeats(tmp_path: Path, tls: bool) -> None:
    require("gcc")
    with (
        running_sink(tmp_path, tls=tls) as (_, port),
        connected(port, tmp_path, tls=tls, purpose="control") as pop,
    ):
        assert pop.await_message(DirectoryDelta).origin == edged_server.ORIGIN
        begin = time.monotonic()
        for _ in range(3):
            assert pop.await_message(Heartbeat).report == edged_server.REPORT
        assert time.monotonic() - begin < 2.0
