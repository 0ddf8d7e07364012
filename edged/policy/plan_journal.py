"""A journal of IRS's plans: what each was made of, so that it can be made again, byte for byte.

A file is MAGIC and records. A record is a head, `_HEAD`: the length of what follows and its CRC-32;
then MessagePack, deflated: first a `JournalHeader`, then `PlanRecord`s. A record that was cut, as
IRS was killed, is not read; what else is wrong is an error, and what comes before it was read.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.media.routing import Unix
from edged.policy.flows import FlowSolve, LinkLimit
from edged.policy.planner import LeasePlan, OriginSupply, PlanPolicy, PopDemand, plan_leases

MAGIC: Final = b"edged plans 1\n"
RECORD_BYTES_MAX: Final = 16 * 2**20  # Deflated; 100 PoPs and 10 origins are some 16 KB.
FILE_BYTES_MAX: Final = 2**30  # What is read at once.
INFLATED_BYTES_MAX: Final = 64 * 2**20
DEFLATE_LEVEL: Final = 1  # Twice as small as none costs; the next level saves 5 % more.
_HEAD: Final = struct.Struct("!II")


class JournalHeader(Struct, frozen=True, kw_only=True):
    """Of whom a file is."""

    edged: str  # Version.
    solver: str  # "HiGHS 1.15.1"; "" without one. Another may give other vertices.


class PlanInputs(Struct, frozen=True, kw_only=True):
    """All that a plan depends on, beside what the solver holds since it last began cold."""

    origins: list[OriginSupply]
    pops: list[PopDemand]
    links: tuple[LinkLimit, ...]
    policy: PlanPolicy
    reserve_fraction: float
    horizon_s: float

    def make_plan(self, solve: FlowSolve) -> LeasePlan:
        """Plan by them, as IRS did and as a replay does; `solve`: of a `FlowSolver`."""
        return plan_leases(
            self.origins,
            self.pops,
            reserve_fraction=self.reserve_fraction,
            solve=solve if self.policy == "leases" else None,
            horizon_s=self.horizon_s,
            links=self.links,
        )


class PlanRecord(Struct, frozen=True, kw_only=True):
    """A plan that was made."""

    number: int  # Since IRS's start, from 0 on.
    unix: Unix  # When.
    epoch: int  # Of the tables that came of it.
    version: int
    cold: bool  # The solver began cold with it.
    inputs: PlanInputs
    failure: str  # Why the solver made none.
    digest: bytes  # Of the leases, `digest_of`.


def digest_of(plan: LeasePlan) -> bytes:
    """What the leases of two plans have in common if they are the same, byte for byte."""
    leases = msgspec.msgpack.encode(sorted(plan.leases.items()), order="deterministic")
    return hashlib.sha256(leases).digest()[:16]


def encode(what: JournalHeader | PlanRecord) -> bytes:
    """A record without its head, not deflated: the quick part of `frame`."""
    return msgspec.msgpack.encode(what)


def frame(body: bytes) -> bytes:
    """A whole record of what `encode` gave; slow, and lets other threads run."""
    deflated = zlib.compress(body, DEFLATE_LEVEL)
    assert len(deflated) <= RECORD_BYTES_MAX, "who keeps it must have bounded the body"
    return _HEAD.pack(len(deflated), zlib.crc32(deflated)) + deflated


def read_journal(data: bytes, name: str) -> tuple[JournalHeader, Iterator[PlanRecord]]:
    """A file's header and records; raises RemoteProtocolError that names the file and the place.

    The iterator raises it as well. `name` is the file's, for what is said.
    """
    if not data.startswith(MAGIC):
        raise RemoteProtocolError(f"{name} is no journal of plans: it does not begin as one")
    bodies = _bodies(data, name)
    _, body = next(bodies, (0, b""))
    try:
        header = msgspec.msgpack.decode(body, type=JournalHeader)
    except msgspec.MsgspecError as error:
        raise RemoteProtocolError(f"{name}: its header cannot be read: {error}") from error
    return header, _records(bodies, name)


def _records(bodies: Iterator[tuple[int, bytes]], name: str) -> Iterator[PlanRecord]:
    decoder = msgspec.msgpack.Decoder(PlanRecord)
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
