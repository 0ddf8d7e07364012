"""What rules decide over, taken from running PoPs: the tables, what each sees, its live streams.

It is taken where streams are known: each PoP knows its own, IRS only how many there are. Those of
several PoPs together are a view of the network; as JSON it is what `edged rules snapshot` writes.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from edged.errors import EdgedError
from edged.media.routing import (
    ORIGINS_MAX,
    RULES_MAX,
    Count,
    Milliseconds,
    Name,
    OriginReport,
    OriginRow,
    OriginState,
    RouteRequest,
    Rule,
    Seconds,
    Text,
    Unix,
)
from edged.policy.pop_view import Candidate, PopView

FORMAT = "edged rules snapshot 1"
SNAPSHOT_BYTES_MAX = 64 * 2**20  # As an answer of the admin door.
STREAMS_MAX = 20_000  # Of a PoP shard, the first by name: it carries a tenth of that.
POPS_MAX = 512

Stamp = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # As of a RoutingTable: seconds, past 2038 too.


class StreamTaken(Struct, frozen=True, kw_only=True):
    """A live stream: what rules ask of it, where it is, and which rule brought it there."""

    request: RouteRequest
    origin: Name
    matched: Text = ""
    for_s: Seconds = 0.0


class StreamElsewhere(Struct, frozen=True, kw_only=True):
    """A stream of another PoP, as the directory tells: it counts where tags relate streams."""

    channel: str
    origin: Name
    tags: tuple[str, ...]


class OriginTaken(Struct, frozen=True, kw_only=True):
    """An origin as a PoP sees it. `down`: why its link does not stand; "" when it does."""

    row: OriginRow
    down: str
    rtt_ms: Milliseconds | None
    state: OriginState | None  # By its heartbeats; None: none was heard.
    report: OriginReport | None
    used: Count = 0


class PopTaken(Struct, frozen=True, kw_only=True):
    """One PoP shard."""

    pop: Text
    shard: Count = 0
    at: Unix
    epoch: Stamp
    version: Stamp
    lease_left_s: Seconds  # 0: expired.
    origins: Annotated[tuple[OriginTaken, ...], Meta(max_length=ORIGINS_MAX)]
    rules: Annotated[tuple[Rule, ...], Meta(max_length=RULES_MAX)]
    streams: Annotated[tuple[StreamTaken, ...], Meta(max_length=STREAMS_MAX)]
    streams_total: Count
    elsewhere: Annotated[tuple[StreamElsewhere, ...], Meta(max_length=STREAMS_MAX)] = ()
    elsewhere_total: Count = 0

    @property
    def key(self) -> str:
        """Name of the shard: "ams1", or "ams1/2"."""
        return f"{self.pop}/{self.shard}" if self.shard else self.pop


class RulesSnapshot(Struct, frozen=True, kw_only=True):
    """The file."""

    format: str = FORMAT
    pops: Annotated[tuple[PopTaken, ...], Meta(max_length=POPS_MAX)]


def take_pop(
    view: PopView,
    streams: Sequence[StreamTaken],
    elsewhere: Mapping[str, tuple[str, tuple[str, ...]]],
    *,
    shard: int,
    now: float,
    unix: float,
) -> PopTaken:
    """Take a PoP as it is; raises EdgedError if it has no table yet. `elsewhere`: by channel."""
    table = view.table
    if table is None:
        raise EdgedError(f"PoP {view.pop} has no routing table yet: there is nothing to compare")
    ordered = sorted(streams, key=lambda stream: stream.request.channel)
    return PopTaken(
        pop=view.pop,
        shard=shard,
        at=unix,
        epoch=table.epoch,
        version=table.version,
        lease_left_s=max(0.0, view.lease_until - now),
        origins=tuple(_take_origin(view, known) for known in view.by_name.values()),
        rules=table.rules,
        streams=tuple(ordered[:STREAMS_MAX]),
        streams_total=len(ordered),
        elsewhere=tuple(
            StreamElsewhere(channel=channel, origin=origin, tags=tags)
            for channel, (origin, tags) in sorted(elsewhere.items())[:STREAMS_MAX]
        ),
        elsewhere_total=len(elsewhere),
    )


def decode(data: bytes, source: str) -> RulesSnapshot:
    """Read what was written; raises EdgedError that names `source` and what is wrong with it."""
    if len(data) > SNAPSHOT_BYTES_MAX:
        raise EdgedError(f"{source}: {len(data)} bytes exceed {SNAPSHOT_BYTES_MAX}")
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.format != FORMAT:
            shown = head.format[:60] or "no format"
            raise EdgedError(
                f"{source}: is no snapshot that is known here: {shown!r}, not {FORMAT!r}"
            )
        return msgspec.json.decode(data, type=RulesSnapshot)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise EdgedError(f"{source}: is no snapshot of `edged rules snapshot`: {error}") from error


def merge(snapshots: Sequence[RulesSnapshot]) -> RulesSnapshot:
    """All their PoPs; of one that is in several, as it was last. Raises EdgedError at POPS_MAX."""
    newest: dict[str, PopTaken] = {}
    for snapshot in snapshots:
        for pop in snapshot.pops:
            known = newest.get(pop.key)
            if known is None or known.at <= pop.at:
                newest[pop.key] = pop
    if len(newest) > POPS_MAX:
        raise EdgedError(f"{len(newest)} PoPs in all the snapshots exceed {POPS_MAX}")
    return RulesSnapshot(pops=tuple(newest[key] for key in sorted(newest)))


class _Head(Struct):
    format: str = ""


def _take_origin(view: PopView, known: Candidate) -> OriginTaken:
    name = known.origin
    return OriginTaken(
        row=known.row,
        down=view.link_state(name),
        rtt_ms=None if known.rtt_ms == float("inf") else known.rtt_ms,
        state=view.capacitor.state(name),
        report=view.capacitor.report(name),
        used=known.used,
    )
