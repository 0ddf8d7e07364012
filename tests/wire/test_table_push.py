"""Pushing tables: one at a time, deltas when both ends agree, snapshots when they do not."""

import itertools

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.routing import OriginRow, OriginState, RoutingTable
from edged.wire.table import Ack, Delta, Nack, Snapshot, table_crc
from edged.wire.table_push import ACK_S_MAX, NACKS_MAX, TableHolder, TablePusher

_nonces = itertools.count(1)


def entropy(count: int) -> bytes:
    return next(_nonces).to_bytes(count, "big")


def table(version: int, *quotas: int, epoch: int = 5) -> RoutingTable:
    rows = tuple(
        OriginRow(f"o{n}", f"o{n}:1", OriginState.UP, quota) for n, quota in enumerate(quotas)
    )
    return RoutingTable(
        epoch=epoch, version=version, issued=float(version), ttl_s=30.0, lease_ttl_s=10.0, rows=rows
    )


def pusher_for(holder: TableHolder, known: RoutingTable | None = None) -> TablePusher:
    return TablePusher(holder.hello("lhr", 0), known, entropy)


def exchange(pusher: TablePusher, holder: TableHolder) -> list[str]:
    """Push until nothing is due; returns the kinds of messages that went by."""
    kinds: list[str] = []
    while (push := pusher.next_push(0.0)) is not None:
        answer = holder.receive(push)
        kinds += [type(push).__name__, type(answer).__name__]
        if isinstance(answer, Ack):
            pusher.receive_ack(answer)
        else:
            pusher.receive_nack(answer)
    return kinds


def test_first_a_snapshot_then_deltas() -> None:
    holder = TableHolder()
    pusher = pusher_for(holder)
    pusher.offer(table(1, 5, 6))
    assert exchange(pusher, holder) == ["Snapshot", "Ack"]
    pusher.offer(table(2, 5, 7))
    assert exchange(pusher, holder) == ["Delta", "Ack"]
    assert holder.table == pusher.acked == table(2, 5, 7)
    assert (pusher.snapshots, pusher.deltas, pusher.nacks) == (1, 1, 0)


def test_at_most_one_push_is_unacked_and_the_newest_offer_follows() -> None:
    holder = TableHolder()
    pusher = pusher_for(holder)
    pusher.offer(table(1, 1))
    push = pusher.next_push(10.0)
    assert isinstance(push, Snapshot)
    assert pusher.next_timeout() == 10.0 + ACK_S_MAX
    pusher.offer(table(2, 2))
    pusher.offer(table(3, 3))
    assert pusher.next_push(10.0) is None
    answer = holder.receive(push)
    assert isinstance(answer, Ack)
    pusher.receive_ack(answer)
    assert pusher.next_timeout() == float("inf")
    assert exchange(pusher, holder) == ["Delta", "Ack"]
    assert holder.table == table(3, 3)


def test_a_session_resumes_by_delta_from_what_was_acked() -> None:
    holder = TableHolder(table(4, 1, 2))
    pusher = pusher_for(holder, known=table(4, 1, 2))
    pusher.offer(table(5, 1, 3))
    assert exchange(pusher, holder) == ["Delta", "Ack"]


@pytest.mark.parametrize("known", [None, table(3, 1, 2), table(4, 1, 9)])
def test_a_session_that_cannot_resume_begins_with_a_snapshot(known: RoutingTable | None) -> None:
    holder = TableHolder(table(4, 1, 2))
    pusher = pusher_for(holder, known)
    pusher.offer(table(5, 1, 3))
    assert exchange(pusher, holder) == ["Snapshot", "Ack"]


def test_version_mismatch_is_nacked_and_mended_by_a_snapshot() -> None:
    holder = TableHolder(table(4, 1, 2))
    pusher = pusher_for(holder, known=table(4, 1, 2))
    holder.receive(Snapshot(nonce=9, crc=table_crc(table(6, 7, 7)), table=table(6, 7, 7)))
    pusher.offer(table(7, 1, 3))
    push = pusher.next_push(0.0)
    assert isinstance(push, Delta)
    answer = holder.receive(push)
    assert isinstance(answer, Nack)
    assert (answer.epoch, answer.version) == (5, 6)
    assert answer.reason == "delta is from (epoch 5, v4), here is (epoch 5, v6)"
    pusher.receive_nack(answer)
    assert exchange(pusher, holder) == ["Snapshot", "Ack"]
    assert holder.table == table(7, 1, 3)


def test_crc_mismatch_is_nacked_and_mended_by_a_snapshot() -> None:
    holder = TableHolder(table(4, 1, 2))
    pusher = pusher_for(holder, known=table(4, 1, 2))
    # The table here is damaged behind its CRC's back, as a fault in memory would do it.
    holder.table = table(4, 1, 999)
    pusher.offer(table(5, 8, 2))
    assert exchange(pusher, holder) == ["Delta", "Nack", "Snapshot", "Ack"]
    assert holder.table == table(5, 8, 2)
    assert pusher.nacks == 1


def test_a_wrong_ack_counts_as_a_nack() -> None:
    holder = TableHolder()
    pusher = pusher_for(holder)
    pusher.offer(table(1, 1))
    push = pusher.next_push(0.0)
    assert isinstance(push, Snapshot)
    answer = holder.receive(push)
    assert isinstance(answer, Ack)
    assert pusher.receive_ack(msgspec.structs.replace(answer, nonce=answer.nonce + 1)) is None
    assert pusher.nacks == 0  # An answer to something else says nothing.
    assert pusher.receive_ack(msgspec.structs.replace(answer, crc=answer.crc ^ 1)) is None
    assert pusher.nacks == 1
    assert exchange(pusher, holder) == ["Snapshot", "Ack"]


def test_what_is_not_newer_is_refused_and_what_is_the_same_is_acked() -> None:
    holder = TableHolder(table(4, 1))
    for stale in (table(3, 2), table(4, 2), table(9, 2, epoch=4)):
        answer = holder.receive(Snapshot(nonce=1, crc=table_crc(stale), table=stale))
        assert isinstance(answer, Nack)
        assert "is not newer" in answer.reason
    same = holder.receive(Snapshot(nonce=1, crc=table_crc(table(4, 1)), table=table(4, 1)))
    assert isinstance(same, Ack)
    newer = table(1, 3, epoch=6)
    assert isinstance(holder.receive(Snapshot(nonce=1, crc=table_crc(newer), table=newer)), Ack)


def test_a_delta_needs_a_table_and_a_snapshot_its_crc() -> None:
    holder = TableHolder()
    other = TableHolder(table(4, 1))
    pusher = pusher_for(other, known=table(4, 1))
    pusher.offer(table(5, 2))
    push = pusher.next_push(0.0)
    assert isinstance(push, Delta)
    answer = holder.receive(push)
    assert isinstance(answer, Nack)
    assert answer.reason == "delta, but there is no table here"
    answer = holder.receive(Snapshot(nonce=1, crc=1, table=table(4, 1)))
    assert isinstance(answer, Nack)
    assert answer.reason.startswith("crc of the table is ")
    assert holder.table is None


def test_too_many_nacks_in_a_row_end_the_session() -> None:
    pusher = pusher_for(TableHolder())
    pusher.offer(table(1, 1))
    for count in range(1, NACKS_MAX + 1):
        push = pusher.next_push(0.0)
        assert push is not None
        nack = Nack(epoch=0, version=0, nonce=push.nonce, reason="no")
        if count < NACKS_MAX:
            pusher.receive_nack(nack)
        else:
            with pytest.raises(RemoteProtocolError, match="3 pushes in a row not accepted"):
                pusher.receive_nack(nack)
    pusher.receive_nack(Nack(epoch=0, version=0, nonce=0, reason="stray"))


@hypothesis.given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 3), max_size=4), st.sampled_from(["", "", "damage", "lose"])
        ),
        max_size=12,
    )
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_both_ends_agree_whatever_happens_between(
    steps: list[tuple[list[int], str]],
) -> None:
    holder = TableHolder()
    pusher = pusher_for(holder)
    for version, (quotas, fault) in enumerate(steps, 1):
        if fault == "damage" and holder.table is not None:
            holder.table = msgspec.structs.replace(holder.table, ttl_s=1.0)
        if fault == "lose":
            holder = TableHolder()
        pusher.offer(table(version, *quotas))
        exchange(pusher, holder)
        assert holder.table == pusher.acked == table(version, *quotas)
