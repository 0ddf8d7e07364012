"""The wire of IRS: any split, garbage, limits; deltas, CRCs and the table file."""

import contextlib
import itertools
import struct
import zlib
from typing import get_args

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from msgspec import UNSET, Struct

from edged.errors import RemoteProtocolError
from edged.media.epochs import DrainNote, EpochAnswer, EpochAsk, IrsMemo
from edged.media.live import LiveAsk, LiveReport, LiveRow
from edged.media.reach import (
    ORDERS_MAX,
    PEERS_MAX,
    ROWS_BYTES_MAX,
    RUNGS_MAX,
    VIA_CHARS_MAX,
    Audience,
    AudienceRow,
    Reach,
    ReachOrder,
)
from edged.media.routing import (
    ADDRESS_CHARS_MAX,
    BOUNDS_MAX,
    ORIGINS_MAX,
    RULES_MAX,
    TEXT_CHARS_MAX,
    UNITS_MAX,
    BoundUnits,
    IngestOffer,
    Match,
    OriginReport,
    OriginRow,
    OriginState,
    PathProbe,
    PopRow,
    PopState,
    PopTelemetry,
    ReportedState,
    RoutingTable,
    Rule,
)
from edged.wire.table import (
    FRAME_BYTES_MAX,
    HELLO_BYTES_MAX,
    MOVES_MAX,
    PICKS_MAX,
    Ack,
    Alive,
    Delta,
    Drain,
    FrameReader,
    FullWay,
    Goodbye,
    Heartbeat,
    Message,
    Migrate,
    Move,
    Moved,
    MoveRefused,
    Nack,
    OriginHello,
    Pick,
    PopHello,
    PopKey,
    Pops,
    Shed,
    ShedDone,
    ShedPick,
    Snapshot,
    Telemetry,
    apply_delta,
    decode_file,
    encode_file,
    encode_frame,
    encoded_bytes,
    make_delta,
    table_crc,
)

ROWS = st.builds(
    OriginRow,
    origin=st.sampled_from(["ams1", "fra1", "lhr1", "nyc1"]),
    address=st.sampled_from(["10.0.0.1:1940", "[2001:db8::1]:1940"]),
    state=st.sampled_from(list(OriginState)),
    quota=st.integers(0, 1000),
    price=st.floats(0, 400),
    reserve=st.integers(0, 9),
    domain=st.sampled_from(["", "rack-1"]),
)
RULES = st.lists(
    st.builds(
        Rule,
        name=st.sampled_from(["", "a"]),
        match=st.builds(Match, channel=st.sampled_from(["", "x"]), class_=st.just("partner")),
        pin=st.sampled_from(["", "ams1"]),
    ),
    max_size=3,
).map(tuple)


def tables(version: int) -> st.SearchStrategy[RoutingTable]:
    return st.builds(
        RoutingTable,
        epoch=st.just(5),
        version=st.just(version),
        issued=st.floats(0, 1e10),
        ttl_s=st.floats(0, 100),
        lease_ttl_s=st.floats(0, 100),
        rows=st.lists(ROWS, max_size=4, unique_by=lambda row: row.origin).map(
            lambda rows: tuple(sorted(rows, key=lambda row: row.origin))
        ),
        rules=RULES,
        kept=st.dictionaries(st.sampled_from(["ams1", "fra1"]), st.integers(1, 9)),
    )


TABLE = RoutingTable(
    epoch=5,
    version=9,
    issued=1.7e9,
    ttl_s=30.0,
    lease_ttl_s=10.0,
    rows=(OriginRow("ams1", "10.0.0.1:1940", OriginState.UP, 12, 3.5, 1, "rack-1"),),
    rules=(Rule(name="pin", match=Match(channel="alice"), pin="ams1"),),
)
OFFER = IngestOffer(("rtmp://lhr/live",), PopState.UP, 0.25)
REPORT = OriginReport("ams1", 7, ReportedState.UP, 100, (9, 8, 7), 512.5)
EVERY_MESSAGE: list[Message] = [
    PopHello(pop="lhr", shard=2, epoch=5, version=9, crc=77),
    OriginHello(origin="ams1", incarnation=7, address="10.0.0.1:1940", domain="rack-1"),
    Heartbeat(REPORT),
    Snapshot(nonce=1, crc=table_crc(TABLE), table=TABLE),
    Delta(
        nonce=2,
        epoch=5,
        from_version=8,
        version=9,
        issued=1.0,
        ttl_s=30.0,
        lease_ttl_s=10.0,
        changed=TABLE.rows,
        removed=("fra1",),
        rules=TABLE.rules,
        crc_after=3,
    ),
    Ack(epoch=5, version=9, nonce=1, crc=77),
    Nack(epoch=5, version=8, nonce=2, reason="crc"),
    Telemetry(
        PopTelemetry(
            {"ams1": (1, 2, 3)},
            4,
            {"ams1": 1},
            {},
            0,
            {"ams1": PathProbe(12.5, 0.01)},
            OFFER,
            {"ams1": (6.0, 0.5)},
            (BoundUnits(("ams1",), ("fra1",), {"ams1": (0, 2, 0)}, 3, newcomers=True),),
        )
    ),
    Moved(
        channel="alice",
        publication=3,
        home_epoch=2,
        from_origin="ams1",
        to_origin="fra1",
        unit_seq=1000,
    ),
    Migrate(
        moves=(Move("alice", "ams1", "fra1"),),
        deadline=1.7e9,
        budget_per_s=1000.0,
        picks=(Pick("ams1", "fra1", "basic", 12),),
        number=7,
        left_s=5.0,
    ),
    Drain(origin="ams1", until=1.7e9, undone=True, left_s=60.0, budget_per_s=2.5),
    Shed(
        epoch=5,
        number=8,
        picks=(ShedPick("ams1", "basic", 3, 12, "fra-ams to ams"),),
        full=(FullWay("ams1", "affiliate", "fra-ams to ams"),),
        full_s=30.0,
    ),
    ShedDone(
        epoch=5,
        number=8,
        origin="ams1",
        class_="basic",
        link="fra-ams to ams",
        wanted=3,
        ended=2,
        channels=("alice", "bob"),
    ),
    MoveRefused(number=7, channel="alice", from_origin="ams1", to_origin="fra1", reason="full"),
    Pops(whole=True, changed=(PopRow("lhr", 2, OFFER),), removed=(PopKey("ams", 1),)),
    EpochAsk(irs="a1b2", number=3, kind="want", epoch=6, memo=(5, 2)),
    EpochAnswer(
        number=3,
        granted=True,
        begins=True,
        epoch=6,
        left_s=1.5,
        holder="irs2:1940",
        stamp=(5, 3),
        memo=IrsMemo(
            epoch=5,
            revision=3,
            drains=(DrainNote(origin="ams1", since=1.6e9, until=1.7e9, left_s=2.0, by="me"),),
        ),
    ),
    IrsMemo(epoch=6, revision=1),
    Audience(rows=(AudienceRow("alice", 9, (1, 2), {"v0": 3}, "ams1/0", held=True),), omitted=1),
    Reach(epoch=3, number=1, ttl_s=60, orders=(ReachOrder("alice", hold=True),)),
    LiveAsk(number=2),
    LiveReport(
        ask=2,
        number=1,
        changed=(LiveRow("alice", 3, 2, "ams1", "basic", "rtmps", 1.7e9, waits=True),),
        removed=("bob",),
        more=True,
        count=1,
        omitted=4,
    ),
    Alive(5),
    Goodbye("drain"),
]


def test_every_message_travels() -> None:
    assert {type(message) for message in EVERY_MESSAGE} == set(get_args(Message))
    wire = b"".join(encode_frame(message) for message in EVERY_MESSAGE)
    assert FrameReader().receive_data(wire) == EVERY_MESSAGE


@pytest.mark.parametrize(
    ("key", "one", "limit"),
    [
        ("moves", Move("alice", "ams1", "fra1"), MOVES_MAX),
        ("picks", Pick("ams1", "fra1", "basic", 12), PICKS_MAX),
    ],
)
def test_a_migration_has_limits(key: str, one: object, limit: int) -> None:
    migrate = next(each for each in EVERY_MESSAGE if isinstance(each, Migrate))

    def wire(count: int) -> bytes:
        return encode_frame(msgspec.structs.replace(migrate, **{key: (one,) * count}))

    (read,) = FrameReader().receive_data(wire(limit))
    assert len(getattr(read, key)) == limit
    with pytest.raises(RemoteProtocolError, match=f"length <= {limit}"):
        FrameReader().receive_data(wire(limit + 1))


class TelemetryBefore(Struct, frozen=True, array_like=True):
    """As peers knew it that know nothing of offers."""

    units: dict[str, tuple[int, int, int]]
    arrivals: int = 0
    refusals: dict[str, int] = {}
    timeouts: dict[str, int] = {}
    unplaced: int = 0
    probes: dict[str, PathProbe] = {}


class MigrateBefore(Struct, frozen=True, kw_only=True, tag="migrate"):
    """As PoPs knew it that did nothing of it."""

    moves: tuple[Move, ...]
    deadline: float
    budget_per_s: float


class MovedBefore(Struct, frozen=True, kw_only=True, tag="moved"):
    """As an IRS knew it that heard of failures alone."""

    channel: str
    publication: int
    home_epoch: int
    from_origin: str
    to_origin: str
    unit_seq: int


def test_older_peers_read_what_newer_ones_say_of_moves() -> None:
    encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
    migrate = next(each for each in EVERY_MESSAGE if isinstance(each, Migrate))
    assert decode(encode(migrate), type=MigrateBefore).deadline == migrate.deadline
    before = MigrateBefore(moves=(), deadline=1.0, budget_per_s=2.0)
    assert decode(encode(before), type=Migrate).picks == ()
    moved = next(each for each in EVERY_MESSAGE if isinstance(each, Moved))
    known = decode(encode(msgspec.structs.replace(moved, why="drain", number=3)), type=MovedBefore)
    assert (known.channel, known.unit_seq) == ("alice", 1000)
    assert decode(encode(known), type=Moved) == moved


def test_the_longest_telemetry_fits_a_frame() -> None:
    names = tuple(f"{n:063}" for n in range(ORIGINS_MAX))
    half = ORIGINS_MAX // 2
    most = (UNITS_MAX, UNITS_MAX, UNITS_MAX)
    units = dict.fromkeys(names, most)
    held = ((most, most),) * ORIGINS_MAX
    bound = BoundUnits(names[:half], names[half:], units, UNITS_MAX, newcomers=True, held=held)
    told = Telemetry(
        PopTelemetry(
            units,
            UNITS_MAX,
            dict.fromkeys(names, UNITS_MAX),
            dict.fromkeys(names, UNITS_MAX),
            UNITS_MAX,
            dict.fromkeys(names, PathProbe(*(0.5,) * 5)),
            OFFER,
            dict.fromkeys(names, (0.5, 0.5)),
            (bound,) * BOUNDS_MAX,
        )
    )
    assert len(msgspec.msgpack.encode(told)) <= FRAME_BYTES_MAX


def test_the_longest_orders_and_reports_fit_a_frame() -> None:
    """An order has a channel and a PoP shard, and each of those may be elsewhere."""
    wide = "\N{GRINNING FACE}"
    orders = tuple(
        ReachOrder(f"{number:04}" + (TEXT_CHARS_MAX - 4) * wide, hold=True, via=VIA_CHARS_MAX * "p")
        for number in range(ORDERS_MAX)
    )
    relays = {
        f"{number:04}" + (VIA_CHARS_MAX - 4) * "p": ADDRESS_CHARS_MAX * "a"
        for number in range(PEERS_MAX)
    }
    reach = Reach(epoch=2**63 - 1, number=2**63 - 1, ttl_s=600, orders=orders, relays=relays)
    assert FrameReader().receive_data(encode_frame(reach)) == [reach]
    rungs = {f"{number:016}": UNITS_MAX for number in range(RUNGS_MAX)}
    row = AudienceRow(
        TEXT_CHARS_MAX * wide, UNITS_MAX, 6 * (UNITS_MAX,), rungs, VIA_CHARS_MAX * "p"
    )
    count = ROWS_BYTES_MAX // encoded_bytes(row)
    audience = Audience(
        rows=count * (row,), relay=ADDRESS_CHARS_MAX * "a", peers=dict.fromkeys(relays, 1e9)
    )
    assert FrameReader().receive_data(encode_frame(audience)) == [audience]
    too_many = msgspec.structs.replace(reach, orders=(*orders, orders[0]))
    with pytest.raises(RemoteProtocolError, match="length <= 500"):
        FrameReader().receive_data(encode_frame(too_many))


def test_older_peers_take_what_newer_ones_say_and_the_other_way_round() -> None:
    bound = (BoundUnits(("ams1",)),)
    newer = PopTelemetry({"ams1": (1, 2, 3)}, 4, ingest=OFFER, bound=bound)
    older = TelemetryBefore({"ams1": (1, 2, 3)}, 4)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(newer), type=TelemetryBefore) == older
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(older), type=PopTelemetry)
    assert told == PopTelemetry({"ams1": (1, 2, 3)}, 4)
    hello = msgspec.to_builtins(PopHello(pop="lhr", wants_pops=True, tells_live=True))
    del hello["wants_pops"], hello["tells_live"]
    before = msgspec.convert(hello, PopHello)
    assert (before.wants_pops, before.tells_live) == (False, False)
    hello = msgspec.to_builtins(PopHello(pop="lhr", wants_kept=True))
    del hello["wants_kept"]
    assert not msgspec.convert(hello, PopHello).wants_kept
    assert not msgspec.convert(hello, PopHello).moves_streams
    assert not msgspec.convert(hello, PopHello).sheds_streams
    unknown = IngestOffer(("rtmp://x/live",), "asleep", 0.0)  # A state of the future.
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(unknown), type=IngestOffer) == unknown


class TableBefore(Struct, frozen=True, kw_only=True):
    """As peers knew it that know nothing of units kept for partners."""

    epoch: int
    version: int
    issued: float
    ttl_s: float
    lease_ttl_s: float
    rows: tuple[OriginRow, ...] = ()
    rules: tuple[Rule, ...] = ()


def test_older_peers_come_to_the_same_crc_of_a_table_without_kept_units() -> None:
    for table in (TABLE, msgspec.structs.replace(TABLE, rows=(), rules=())):
        assert table.kept is UNSET
        body = msgspec.msgpack.encode(table)
        older = msgspec.msgpack.decode(body, type=TableBefore)
        assert msgspec.msgpack.encode(older) == body
        assert zlib.crc32(body) == table_crc(table)
        assert msgspec.msgpack.decode(body, type=RoutingTable) == table
    newer = msgspec.structs.replace(TABLE, kept={"ams1": 3})
    older = msgspec.msgpack.decode(encode_file(newer)[14:], type=TableBefore)
    assert msgspec.msgpack.encode(older) == msgspec.msgpack.encode(
        TABLE
    )  # A file after a downgrade.


def test_kept_units_travel_when_they_change() -> None:
    first = msgspec.structs.replace(TABLE, version=10, kept={"ams1": 3})
    delta = make_delta(TABLE, first, 1)
    assert delta.kept == {"ams1": 3}
    assert apply_delta(TABLE, delta) == first
    same = msgspec.structs.replace(first, version=11)
    assert make_delta(first, same, 1).kept is UNSET
    assert apply_delta(first, make_delta(first, same, 1)) == same
    none = msgspec.structs.replace(first, version=11, kept={})
    assert apply_delta(first, make_delta(first, none, 1)) == none


class RuleBefore(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As PoPs knew it before there was `on_full` and `dscp`."""

    name: str = ""
    match: Match = Match()
    pin: str = ""
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    group_by: str = ""
    anti_affinity: str = ""
    reserve: bool = False
    max_rtt_ms: float | None = None


def test_a_rule_without_newer_keys_has_the_bytes_that_it_always_had() -> None:
    """The CRC of a table is that of its bytes, as each side encodes them."""
    before = RuleBefore(name="vip", match=Match(channel="alice"), avoid=("ams1",), max_rtt_ms=9.0)
    now = Rule(name="vip", match=Match(channel="alice"), avoid=("ams1",), max_rtt_ms=9.0)
    wire = msgspec.msgpack.encode(now)
    assert wire == msgspec.msgpack.encode(before)
    assert msgspec.msgpack.decode(wire, type=RuleBefore) == before
    assert msgspec.msgpack.decode(wire, type=Rule) == now
    newer = msgspec.structs.replace(now, on_full="preempt", dscp="af41")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(newer), type=Rule) == newer
    with pytest.raises(msgspec.ValidationError, match="on_full"):
        msgspec.msgpack.decode(msgspec.msgpack.encode(newer), type=RuleBefore)
    hello = msgspec.to_builtins(PopHello(pop="lhr", rules_proto=2))
    del hello["rules_proto"]
    assert msgspec.convert(hello, PopHello).rules_proto == 1


class ReportBefore(Struct, frozen=True, array_like=True):
    """A heartbeat, as peers knew it that know nothing of what is beyond an origin's room."""

    origin: str
    incarnation: int
    state: ReportedState
    slots_total: int
    slots_free: tuple[int, int, int]
    mbps_in: float = 0.0
    ladder_free: tuple[int, int, int] | None = None


def test_heartbeats_of_before_and_of_now_are_understood() -> None:
    newer = OriginReport(
        "o1", 1, ReportedState.UP, 9, (1, 1, 1), source_only_free=3, preemptible=(5, 2, 0)
    )
    older = ReportBefore("o1", 1, ReportedState.UP, 9, (1, 1, 1))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(newer), type=ReportBefore) == older
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(older), type=OriginReport)
    assert (told.source_only_free, told.preemptible) == (0, (0, 0, 0))


WIRE = b"".join(encode_frame(message) for message in EVERY_MESSAGE)


@hypothesis.given(st.sets(st.integers(1, len(WIRE) - 1), max_size=8))
@hypothesis.settings(max_examples=30, deadline=None)
def test_any_split_gives_the_same(cuts: set[int]) -> None:
    reader, received = FrameReader(), []
    for start, end in itertools.pairwise([0, *sorted(cuts), len(WIRE)]):
        received += reader.receive_data(WIRE[start:end])
    assert received == EVERY_MESSAGE


def test_byte_by_byte_gives_the_same() -> None:
    reader, received = FrameReader(), []
    for byte in b"".join(encode_frame(message) for message in EVERY_MESSAGE):
        received += reader.receive_data(bytes([byte]))
    assert received == EVERY_MESSAGE


@hypothesis.given(st.binary(max_size=300), st.booleans())
@hypothesis.settings(max_examples=50, deadline=None)
def test_garbage_raises_only_a_protocol_error(garbage: bytes, framed: bool) -> None:
    data = len(garbage).to_bytes(4, "big") + garbage if framed else garbage
    with contextlib.suppress(RemoteProtocolError):
        FrameReader().receive_data(data)
    with contextlib.suppress(RemoteProtocolError):
        decode_file(garbage)


@hypothesis.given(st.integers(0, len(EVERY_MESSAGE) - 1), st.data())
@hypothesis.settings(max_examples=50, deadline=None)
def test_damaged_messages_raise_only_a_protocol_error(index: int, data: st.DataObject) -> None:
    wire = bytearray(encode_frame(EVERY_MESSAGE[index]))
    wire[data.draw(st.integers(4, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(RemoteProtocolError):
        FrameReader().receive_data(wire)


def test_nesting_bombs_raise_only_a_protocol_error() -> None:
    bomb = b"\x91" * 100_000
    with pytest.raises(RemoteProtocolError):
        FrameReader().receive_data(len(bomb).to_bytes(4, "big") + bomb)
    header = struct.pack(">4sHII", b"EDGT", 1, zlib.crc32(bomb), len(bomb))
    with pytest.raises(RemoteProtocolError):
        decode_file(header + bomb)


def test_frame_limit_at_and_one_past() -> None:
    assert FrameReader().receive_data(FRAME_BYTES_MAX.to_bytes(4, "big")) == []
    with pytest.raises(RemoteProtocolError, match="frame of 1048577 bytes exceeds 1048576"):
        FrameReader().receive_data((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


def test_a_stranger_s_first_frame_is_limited_more_tightly() -> None:
    too_long = (HELLO_BYTES_MAX + 1).to_bytes(4, "big")
    with pytest.raises(RemoteProtocolError, match="irs frame of 4097 bytes exceeds 4096"):
        FrameReader(HELLO_BYTES_MAX).receive_data(too_long)
    reader = FrameReader(HELLO_BYTES_MAX)
    assert reader.receive_data(HELLO_BYTES_MAX.to_bytes(4, "big") + bytes(100)) == []
    hello = encode_frame(EVERY_MESSAGE[1])
    reader = FrameReader(HELLO_BYTES_MAX)
    assert reader.receive_data(hello + FRAME_BYTES_MAX.to_bytes(4, "big")) == [EVERY_MESSAGE[1]]


def test_the_longest_hello_fits() -> None:
    name, wide = "n" * 63, "\N{GRINNING FACE}"
    longest = (
        PopHello(pop=name, shard=4095, epoch=2**63 - 1, version=2**63 - 1, crc=2**32 - 1),
        OriginHello(
            origin=name, incarnation=2**63 - 1, address=wide * ADDRESS_CHARS_MAX, domain=wide * 64
        ),
    )
    for hello in longest:
        reader = FrameReader(HELLO_BYTES_MAX)
        assert reader.receive_data(encode_frame(hello)) == [hello]


def test_table_limits_at_and_one_past() -> None:
    row, rule = TABLE.rows[0], TABLE.rules[0]
    full = msgspec.structs.replace(TABLE, rows=(row,) * ORIGINS_MAX, rules=(rule,) * RULES_MAX)
    assert decode_file(encode_file(full)) == full
    for over in (
        msgspec.structs.replace(TABLE, rows=(row,) * (ORIGINS_MAX + 1)),
        msgspec.structs.replace(TABLE, rules=(rule,) * (RULES_MAX + 1)),
    ):
        with pytest.raises(RemoteProtocolError, match="table file: Expected `array`"):
            decode_file(encode_file(over))
        with pytest.raises(RemoteProtocolError, match="irs frame"):
            FrameReader().receive_data(encode_frame(Snapshot(nonce=1, crc=1, table=over)))


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -1.0])
def test_numbers_that_would_poison_decisions_are_refused(price: float) -> None:
    row = OriginRow("ams1", "h:1", OriginState.UP, 1, price)
    with pytest.raises(RemoteProtocolError):
        decode_file(encode_file(msgspec.structs.replace(TABLE, rows=(row,))))


@hypothesis.given(tables(1), tables(2))
@hypothesis.settings(max_examples=30, deadline=None)
def test_deltas_applied_are_the_snapshot(before: RoutingTable, after: RoutingTable) -> None:
    delta = make_delta(before, after, 1)
    assert apply_delta(before, delta) == after
    assert delta.crc_after == table_crc(apply_delta(before, delta))
    assert not set(delta.removed) & {row.origin for row in delta.changed}


def test_a_delta_has_units_that_are_kept_in_another_order() -> None:
    """Found by the property above: a PoP had refused the delta, and got all of the table."""
    before = msgspec.structs.replace(TABLE, kept={"ams1": 1, "fra1": 1})
    after = msgspec.structs.replace(TABLE, version=10, kept={"fra1": 1, "ams1": 1})
    delta = make_delta(before, after, 1)
    assert delta.crc_after == table_crc(apply_delta(before, delta)) == table_crc(after)


def test_a_delta_carries_only_what_changed() -> None:
    renewed = msgspec.structs.replace(TABLE, version=10, issued=1.7e9 + 1)
    delta = make_delta(TABLE, renewed, 1)
    assert (delta.changed, delta.removed, delta.rules) == ((), (), None)
    assert len(encode_frame(delta)) < 200
    no_rules = msgspec.structs.replace(TABLE, version=10, rules=())
    assert make_delta(TABLE, no_rules, 1).rules == ()
    assert apply_delta(TABLE, make_delta(TABLE, no_rules, 1)) == no_rules


@hypothesis.given(tables(1), st.data())
@hypothesis.settings(max_examples=50, deadline=None)
def test_a_damaged_file_is_detected(table: RoutingTable, data: st.DataObject) -> None:
    assert decode_file(encode_file(table)) == table
    content = bytearray(encode_file(table))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RemoteProtocolError):
        decode_file(bytes(content))
    with pytest.raises(RemoteProtocolError):
        decode_file(encode_file(table)[: data.draw(st.integers(0, len(content) - 1))])


def test_the_file_says_what_is_wrong_with_it() -> None:
    good = encode_file(TABLE)
    other = struct.pack(">4sHII", b"EDGT", 1, zlib.crc32(b"\x01"), 1) + b"\x01"
    for content, message in (
        (b"", "table file of 0 bytes is cut short: its header has 14"),
        (b"hello, this is text", "no table file: it begins with b'hell', not b'EDGT'"),
        (good[:5] + b"\x07" + good[6:], "table file of format 7, known is 1"),
        (good + b"x", f"table file holds {len(good) - 13} bytes of table, not {len(good) - 14}"),
        (good[:-1] + b"x", "table file is corrupt: crc "),
        (other, "table file: Expected `object`, got `int`"),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            decode_file(content)
        assert str(caught.value).startswith(message)
