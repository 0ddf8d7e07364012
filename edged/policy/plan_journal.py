"""A journal of IRS's plans: what each was made of, so that it can be made again, byte for byte.

A file is MAGIC and records. A record is a head, `_HEAD`: the length of what follows and its CRC-32;
then MessagePack, deflated: first a `JournalHeader`, then `PlanRecord`s, with the tables that were
pushed, `MovesRecord`s, and before those that name them the `RulesRecord`s of the file. A record
that was cut, as IRS was killed, is not read; what else is wrong is an error, and what comes before
it was read.

Format 1 had plans alone: leases, but neither what made tables of them (rules, ttls, what PoPs
know) nor moves. Format 2 had moves, but not what rules let which stream go where, nor what PoPs had
refused: nobody asked. Both are read as far as they go.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.media.routing import RoutingTable, Rule, Unix
from edged.policy.flows import FlowSolve, LinkLimit
from edged.policy.move_orders import MovesAsked
from edged.policy.move_refusals import RefusedMove
from edged.policy.moves import MoveInputs, UnitMoves
from edged.policy.planner import LeasePlan, OriginSupply, PlanPolicy, PopDemand, plan_leases
from edged.policy.pushed_tables import Push, Pushed, TableDigests, Variant, make_tables
from edged.policy.shed_orders import ShedsAsked

FORMAT: Final = 3
FORMAT_OF_RULES: Final = 3  # From it on plans of moves keep to rules.
MAGIC: Final = b"edged plans 3\n"
RECORD_BYTES_MAX: Final = 16 * 2**20  # Deflated; 100 PoPs and 10 origins are some 16 KB.
FILE_BYTES_MAX: Final = 2**30  # What is read at once.
INFLATED_BYTES_MAX: Final = 64 * 2**20
DEFLATE_LEVEL: Final = 1  # Twice as small as none costs; the next level saves 5 % more.
_MAGIC: Final = re.compile(rb"edged plans ([1-9]\d{0,8})\n")
_HEAD: Final = struct.Struct("!II")


class JournalHeader(Struct, frozen=True, kw_only=True):
    """Of whom a file is."""

    edged: str  # Version.
    solver: str  # "HiGHS 1.15.1"; "" without one. Another may give other vertices.
    format: int = 1  # Which did not say so.


class PlanInputs(Struct, frozen=True, kw_only=True):
    """All that a plan depends on, beside what the solver holds since it last began cold."""

    origins: list[OriginSupply]
    pops: list[PopDemand]
    links: tuple[LinkLimit, ...]
    policy: PlanPolicy
    reserve_fraction: float
    horizon_s: float
    pins: bool = False  # Of format 3: the program counts pins as such, and not as rows.

    def make_plan(self, solve: FlowSolve) -> LeasePlan:
        """Plan by them, as IRS did and as a replay does; `solve`: of a `FlowSolver`."""
        return plan_leases(
            self.origins,
            self.pops,
            reserve_fraction=self.reserve_fraction,
            solve=solve if self.policy == "leases" else None,
            horizon_s=self.horizon_s,
            links=self.links,
            pins=self.pins,
        )


class RulesRecord(Struct, frozen=True, kw_only=True, tag="rules"):
    """Rules that tables of the file had; before the first of them."""

    digest: bytes  # `digest_of_rules`, by which plans name them.
    rules: tuple[Rule, ...]


class PushedTo(Struct, frozen=True, array_like=True):
    """PoP shards that know the same of tables."""

    variant: Variant
    pops: tuple[str, ...]


class TablesRecord(Struct, frozen=True, kw_only=True):
    """What made tables of the leases of a plan; epoch and version are the plan's."""

    issued: Unix
    ttl_s: float
    lease_ttl_s: float
    rules: bytes  # The digest of the rules in force.
    to: tuple[PushedTo, ...]  # Those who are not there were pushed none.
    digest: bytes  # Of the tables, `TableDigests.of_tables`.


class PlanRecord(Struct, frozen=True, kw_only=True, tag="plan"):
    """A plan that was made."""

    number: int  # Since IRS's start, from 0 on.
    unix: Unix  # When.
    epoch: int  # Of the tables that came of it.
    version: int
    cold: bool  # The solver began cold with it.
    inputs: PlanInputs
    failure: str  # Why the solver made none.
    digest: bytes  # Of the leases, `digest_of`.
    tables: TablesRecord | None = None  # None: of format 1.

    def make_tables(self, plan: LeasePlan, rules: tuple[Rule, ...]) -> dict[str, RoutingTable]:
        """The tables that were pushed, as they are of this plan now; none of format 1."""
        if self.tables is None:
            return {}
        push = Push(
            epoch=self.epoch,
            version=self.version,
            issued=self.tables.issued,
            ttl_s=self.tables.ttl_s,
            lease_ttl_s=self.tables.lease_ttl_s,
        )
        variants = {pop: each.variant for each in self.tables.to for pop in each.pops}
        return make_tables(push, plan.leases, rules, variants)


class ShedsRecord(Struct, frozen=True, kw_only=True):
    """Streams that no move can save, as a plan of moves has named them; perhaps none."""

    leaving: list[UnitMoves]  # What was moved before, and may be told of at both homes.
    digest: bytes  # Of these, `digest_of_units`.
    refused: tuple[RefusedMove, ...] = ()  # What no shed was to hope for, of what the plan has.
    gone: bool = False  # They had to go; else it was not so for long enough yet.
    asked: ShedsAsked | None = None  # What PoPs were ordered.


class MovesRecord(Struct, frozen=True, kw_only=True, tag="moves"):
    """A plan of moves that was made."""

    number: int  # Since IRS's start, from 0 on.
    unix: Unix
    epoch: int
    cold: bool  # The program began cold with it.
    inputs: MoveInputs
    failure: str
    digest: bytes  # Of the moves, `digest_of_moves`.
    asked: MovesAsked | None  # What PoPs were asked; None where nothing is to move.
    sheds: ShedsRecord | None = None  # None: nobody has asked.


Record = PlanRecord | MovesRecord | RulesRecord


def digest_of(plan: LeasePlan) -> bytes:
    """What the leases of two plans have in common if they are the same, byte for byte."""
    leases = msgspec.msgpack.encode(sorted(plan.leases.items()), order="deterministic")
    return hashlib.sha256(leases).digest()[:16]


def record_tables(pushed: Pushed, digests: TableDigests) -> TablesRecord:
    """Of what IRS has pushed."""
    by_variant: dict[Variant, list[str]] = {}
    for pop, variant in pushed.variants.items():
        by_variant.setdefault(variant, []).append(pop)
    return TablesRecord(
        issued=pushed.push.issued,
        ttl_s=pushed.push.ttl_s,
        lease_ttl_s=pushed.push.lease_ttl_s,
        rules=digests.of_rules(pushed.rules),
        to=tuple(PushedTo(variant, tuple(pops)) for variant, pops in by_variant.items()),
        digest=digests.of_tables(pushed.tables),
    )


def encode(what: JournalHeader | Record) -> bytes:
    """A record without its head, not deflated: the quick part of `frame`."""
    return msgspec.msgpack.encode(what)


def frame(body: bytes) -> bytes:
    """A whole record of what `encode` gave; slow, and lets other threads run."""
    deflated = zlib.compress(body, DEFLATE_LEVEL)
    assert len(deflated) <= RECORD_BYTES_MAX, "who keeps it must have bounded the body"
    return _HEAD.pack(len(deflated), zlib.crc32(deflated)) + deflated


def read_journal(data: bytes, name: str) -> tuple[JournalHeader, Iterator[Record]]:
    """A file's header and records; raises RemoteProtocolError that names the file and the place.

    The iterator raises it as well. `name` is the file's, for what is said.
    """
    magic = _MAGIC.match(data)
    if magic is None:
        raise RemoteProtocolError(f"{name} is no journal of plans: it does not begin as one")
    if (number := int(magic[1])) > FORMAT:
        raise RemoteProtocolError(
            f"{name} is a journal of format {number}, of a newer edged; this one reads up to"
            f" {FORMAT}"
        )
    bodies = _bodies(data, name)
    _, body = next(bodies, (0, b""))
    try:
        header = msgspec.msgpack.decode(body, type=JournalHeader)
    except msgspec.MsgspecError as error:
        raise RemoteProtocolError(f"{name}: its header cannot be read: {error}") from error
    if header.format != number:
        raise RemoteProtocolError(
            f"{name}: its header is of format {header.format}, its first line of {number}"
        )
    return header, _records(bodies, name, Record if number > 1 else PlanRecord)


def _records(bodies: Iterator[tuple[int, bytes]], name: str, kinds: object) -> Iterator[Record]:
    decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(kinds)
    for place, body in bodies:
        try:
            yield decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise RemoteProtocolError(f"{name}, byte {place}: no plan: {error}") from error


def _bodies(data: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    """Where each record begins, and what it holds."""
    view, place = memoryview(data), len(MAGIC)
    while place + _HEAD.size <= len(data):
        size, crc = _HEAD.unpack_from(data, place)
        if size > RECORD_BYTES_MAX:
            raise RemoteProtocolError(
                f"{name}, byte {place}: a record of {size} bytes exceeds {RECORD_BYTES_MAX}"
            )
        end = place + _HEAD.size + size
        if end > len(data):
            return  # IRS was killed while it wrote.
        deflated = view[place + _HEAD.size : end]
        if zlib.crc32(deflated) != crc:
            raise RemoteProtocolError(f"{name}, byte {place}: the checksum is wrong")
        yield place, _inflate(deflated, f"{name}, byte {place}")
        place = end


def _inflate(deflated: memoryview, where: str) -> bytes:
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(deflated, INFLATED_BYTES_MAX)
    except zlib.error as error:
        raise RemoteProtocolError(f"{where}: cannot be inflated: {error}") from error
    if inflater.unconsumed_tail or not inflater.eof:
        raise RemoteProtocolError(f"{where}: it exceeds {INFLATED_BYTES_MAX} bytes, or is cut")
    return body
