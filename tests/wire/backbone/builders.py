"""What the backbone's tests are made of: tracks, units, and two links joined by a pipe."""

from collections.abc import Callable, Iterable

from edged.media.access_unit import AccessUnit
from edged.media.gop_ring import GopRing, Start
from edged.media.parts import Part
from edged.media.ring_batch import RingBatch
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import Codec, CodecConfig, Track
from edged.wire.backbone.events import Expected, PeerClosed, UnitsReceived
from edged.wire.backbone.link import BackboneLink, Event
from edged.wire.backbone.messages import PROTO, Hello, Purpose, StreamOpened

STREAM_ID = StreamId("alice", 7, 1)
GRANT = Grant(channel="alice", priority=PriorityClass.BASIC, title="hello", tags=("a", "b"))


def make_track(track_id: int = 1, config_id: int = 0, codec: Codec = Codec.H264) -> Track:
    config = CodecConfig(
        codec=codec, record=b"\x01record" + bytes([config_id % 256]), codec_string="avc1.64001f"
    )
    return Track(
        track_id=track_id, codec=codec, timescale=90_000, config=config, config_id=config_id
    )


def make_unit(seq: int, size: int = 100, **fields: object) -> AccessUnit:
    """A unit whose payload shows its seq."""
    values: dict[str, object] = {
        "track_id": 1,
        "seq": seq,
        "config_id": 0,
        "pts": seq * 3000 + 6000,
        "dts": seq * 3000,
        "wallclock_us": 1_700_000_000_000_000 + seq * 33_333,
        "payload": (seq.to_bytes(8, "big") * (size // 8 + 1))[:size],
        "random_access": seq % 10 == 0,
    }
    return AccessUnit(**(values | fields))  # type: ignore[arg-type]


def make_part(msn: int, index: int, size: int = 100, rendition: str = "v0") -> Part:
    return Part(
        rendition=rendition,
        msn=msn,
        index=index,
        tfdt=msn * 1000 + index,
        duration=100,
        wallclock_us=1,
        init_digest="0" * 16,
        payload=bytes([msn % 256]) * size,
    )


class ListSource:
    """A `UnitSource` over a ring of its own."""

    def __init__(
        self, *, bytes_max: int = 2**26, start: Start | int = "oldest", tracks: Iterable[Track] = ()
    ) -> None:
        self.ring = GopRing(bytes_max=bytes_max, duration_us_max=20_000_000)
        self.tracks = {(track.track_id, track.config_id): track for track in tracks}
        self.tracks.setdefault((1, 0), make_track())
        self.end_reason: str | None = None
        self.cursor = self.ring.reader(start=start)

    def append(self, *units: AccessUnit) -> None:
        for unit in units:
            self.ring.append(unit)

    def read(self, units_max: int, bytes_max: int, /) -> RingBatch:
        return self.cursor.read(units_max, bytes_max)

    @property
    def lag_units(self) -> int:
        return self.cursor.lag_units

    def track(self, track_id: int, config_id: int) -> Track | None:
        return self.tracks.get((track_id, config_id))

    @property
    def ended(self) -> str | None:
        return self.end_reason


def make_hello(role: str = "pop", name: str = "fra1", **fields: object) -> Hello:
    values: dict[str, object] = {
        "proto": PROTO,
        "role": role,
        "name": name,
        "shard": 0,
        "instance": hash((role, name)) & 2**62 - 1,
        "purpose": "media",
        "priority": PriorityClass.BASIC,
    }
    return Hello(**(values | fields))  # type: ignore[arg-type]


class Pair:
    """A PoP's and an origin's link, joined. `cut` chooses how many bytes go at once."""

    def __init__(
        self,
        *,
        purpose: Purpose = "media",
        cut: Callable[[int], int] | None = None,
        windows: dict[str, int] | None = None,
    ) -> None:
        self.now = 100.0
        self.cut = cut
        fields: dict[str, object] = dict(windows or {})
        pop = make_hello("pop", "fra1", purpose=purpose, **fields)
        origin = make_hello("origin", "ams", **fields)
        roles = (frozenset({"origin"}), frozenset({"pop"}))
        self.pop = BackboneLink(pop, Expected(roles=roles[0]), client=True, now=self.now)
        self.origin = BackboneLink(origin, Expected(roles=roles[1]), client=False, now=self.now)
        self.at_pop: list[Event] = []
        self.at_origin: list[Event] = []
        self.settle()

    def settle(self, media_bytes_max: int = 2**26, rounds: int = 50) -> None:
        """Exchange bytes until both are silent."""
        for _ in range(rounds):
            up = b"".join(self.pop.data_to_send(media_bytes_max))
            down = b"".join(self.origin.data_to_send(media_bytes_max))
            if not up and not down:
                return
            self.at_origin += self.deliver(self.origin, up)
            self.at_pop += self.deliver(self.pop, down)

    def deliver(self, link: BackboneLink, data: bytes) -> list[Event]:
        events: list[Event] = []
        while data:
            count = len(data) if self.cut is None else max(1, min(len(data), self.cut(len(data))))
            buffer = bytearray(data[:count])
            events += link.receive_data(memoryview(buffer), self.now)
            buffer[:] = bytes(len(buffer))  # Whoever kept a view of it loses.
            data = data[count:]
        return events

    def open_stream(self, source: ListSource, *tracks: Track) -> int:
        """Offer a stream from the PoP and begin it at once."""
        tracks = tracks or (make_track(),)
        stream_no = self.pop.sender.reserve()
        self.pop.send(
            StreamOpened(
                stream_no=stream_no,
                stream_id=STREAM_ID,
                grant=GRANT,
                tracks=list(tracks),
                first_seq=0,
            )
        )
        config_ids = {track.track_id: track.config_id for track in tracks}
        self.pop.sender.open_units(stream_no, source, config_ids)
        return stream_no

    def units(self, stream_no: int) -> list[AccessUnit]:
        """What the origin got of a stream."""
        return units_of(self.at_origin, stream_no)


def units_of(events: list[Event], stream_no: int) -> list[AccessUnit]:
    return [
        unit
        for event in events
        if isinstance(event, UnitsReceived) and event.stream_no == stream_no
        for unit in event.units
    ]


def lost_reason(link: BackboneLink, data: bytes, now: float = 100.0) -> str:
    """Why the peer says that it closed."""
    last = link.receive_data(data, now)[-1]
    assert isinstance(last, PeerClosed), "the link was not closed"
    return last.reason
