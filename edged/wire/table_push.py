"""Pushing routing tables: one end offers, the other holds; sans-IO.

At most one push is under way. A PoP that has what we last acked gets a Delta, any other a Snapshot;
a Nack, or an Ack whose CRC is not the one we expect, brings a Snapshot. Newest (epoch, version)
wins; what is not newer is refused.

    pusher: IDLE ── offer, push ──▶ UNACKED ── ack ──▶ IDLE
                                       └── nack, wrong crc ──▶ IDLE, next push is a Snapshot
"""

import math
from collections.abc import Callable

from edged.errors import RemoteProtocolError
from edged.media.routing import RULES_PROTO, RoutingTable
from edged.wire.table import (
    REASON_CHARS_MAX,
    Ack,
    Delta,
    Nack,
    PopHello,
    Snapshot,
    apply_delta,
    make_delta,
    table_crc,
)

ACK_S_MAX = 2.0  # Two keepalives: then the PoP hangs, and the session is better begun anew.
NACKS_MAX = 3  # In a row: our snapshots are not understood; say so and begin anew.


class TablePusher:
    """The IRS end, for one PoP. Counters: `snapshots`, `deltas`, `nacks`."""

    def __init__(
        self, hello: PopHello, known: RoutingTable | None, entropy: Callable[[int], bytes]
    ) -> None:
        """`known` is the table that this PoP last acked to us, if any: it may go on from there."""
        has = (hello.epoch, hello.version)
        resumes = known is not None and known.stamp == has and table_crc(known) == hello.crc
        self.acked: RoutingTable | None = known if resumes else None
        self._wanted: RoutingTable | None = None
        self._unacked: RoutingTable | None = None
        self._expected_crc = 0
        self._nonce = 0
        self.pushed_at = math.inf
        self._nacks_in_a_row = 0
        self._entropy = entropy
        self.snapshots = self.deltas = self.nacks = 0

    def offer(self, table: RoutingTable) -> None:
        """Make this the table that the PoP should have; an older offer not yet sent is dropped."""
        self._wanted = table

    def withdraw(self) -> None:
        """Drop what was offered and has not been pushed."""
        self._wanted = None

    def next_push(self, now: float) -> Snapshot | Delta | None:
        """Return the push that is due now, if one is."""
        table = self._wanted
        if table is None or self._unacked is not None:
            return None
        self._wanted = None
        self._unacked = table
        self.pushed_at = now
        self._nonce = int.from_bytes(self._entropy(8), "big") >> 1
        if self.acked is not None and self.acked.epoch == table.epoch:
            self.deltas += 1
            delta = make_delta(self.acked, table, self._nonce)
            self._expected_crc = delta.crc_after
            return delta
        self.snapshots += 1
        self._expected_crc = table_crc(table)
        return Snapshot(nonce=self._nonce, crc=self._expected_crc, table=table)

    def receive_ack(self, ack: Ack) -> RoutingTable | None:
        """Take an Ack; return the table now in force at the PoP, None when it acked another."""
        table = self._take_unacked(ack.nonce)
        if table is None:
            return None
        if (ack.epoch, ack.version) != table.stamp or ack.crc != self._expected_crc:
            self._push_again(
                table, f"acked v{ack.version} crc {ack.crc:08x}, not {self._expected_crc:08x}"
            )
            return None
        self._nacks_in_a_row = 0
        self.acked = table
        return table

    def receive_nack(self, nack: Nack) -> None:
        """Take a Nack: a Snapshot of the newest table follows.

        A PoP whose table is newer than ours would refuse that too: it waits for the next offer.
        Raises RemoteProtocolError after NACKS_MAX in a row.
        """
        table = self._take_unacked(nack.nonce)
        if table is None:
            return
        self._push_again(table, nack.reason)
        if self._wanted is not None and (nack.epoch, nack.version) >= self._wanted.stamp:
            self._wanted = None

    def next_timeout(self) -> float:
        """When the Ack is overdue."""
        return self.pushed_at + ACK_S_MAX

    def restart_timer(self, now: float) -> None:
        """Give the PoP its time anew: our own timer fired late, its answer may lie unread."""
        self.pushed_at = now

    def _take_unacked(self, nonce: int) -> RoutingTable | None:
        if self._unacked is None or nonce != self._nonce:
            return None  # An answer to something older.
        table, self._unacked = self._unacked, None
        self.pushed_at = math.inf
        return table

    def _push_again(self, table: RoutingTable, reason: str) -> None:
        self.nacks += 1
        self._nacks_in_a_row += 1
        self.acked = None
        if self._nacks_in_a_row >= NACKS_MAX:
            raise RemoteProtocolError(
                f"{self._nacks_in_a_row} pushes in a row not accepted, the last: {reason}"
            )
        if self._wanted is None:
            self._wanted = table


class TableHolder:
    """The PoP end: the table in force, whichever session it came by."""

    def __init__(self, table: RoutingTable | None = None) -> None:
        self.table: RoutingTable | None = None
        self.crc = 0
        if table is not None:
            self._accept(table, table_crc(table))

    def hello(self, pop: str, shard: int) -> PopHello:
        """Say who we are and what we have."""
        epoch, version = (0, 0) if self.table is None else self.table.stamp
        return PopHello(
            pop=pop,
            shard=shard,
            epoch=epoch,
            version=version,
            crc=self.crc,
            wants_pops=True,
            wants_kept=True,
            rules_proto=RULES_PROTO,
            moves_streams=True,
            tells_live=True,
            reaches=True,
            sheds_streams=True,
        )

    def receive(self, push: Snapshot | Delta) -> Ack | Nack:
        """Put the pushed table in force, or refuse it; either way the answer must be sent."""
        if isinstance(push, Snapshot):
            table, crc = push.table, push.crc
        else:
            if self.table is None:
                return self._nack(push.nonce, "delta, but there is no table here")
            if self.table.stamp != (push.epoch, push.from_version):
                return self._nack(
                    push.nonce,
                    f"delta is from (epoch {push.epoch}, v{push.from_version}), here is"
                    f" (epoch {self.table.epoch}, v{self.table.version})",
                )
            table, crc = apply_delta(self.table, push), push.crc_after
        if (found := table_crc(table)) != crc:
            return self._nack(push.nonce, f"crc of the table is {found:08x}, not {crc:08x}")
        if self.table is not None and table.stamp <= self.table.stamp and crc != self.crc:
            return self._nack(push.nonce, f"v{table.version} of epoch {table.epoch} is not newer")
        self._accept(table, crc)
        return Ack(epoch=table.epoch, version=table.version, nonce=push.nonce, crc=crc)

    def refuse(self, push: Snapshot | Delta, reason: str) -> Nack:
        """Refuse a push, whatever is in it."""
        return self._nack(push.nonce, reason)

    def _accept(self, table: RoutingTable, crc: int) -> None:
        self.table, self.crc = table, crc

    def _nack(self, nonce: int, reason: str) -> Nack:
        epoch, version = (0, 0) if self.table is None else self.table.stamp
        return Nack(epoch=epoch, version=version, nonce=nonce, reason=reason[:REASON_CHARS_MAX])
