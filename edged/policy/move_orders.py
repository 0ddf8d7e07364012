"""What each PoP is asked of the moves of a plan: its picks, and its part of the budget."""

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from edged.media.routing import Unix
from edged.policy.moves import UnitMoves

BUDGET_PER_S_MIN = 1e-3  # Of a PoP that is to move next to nothing of a plan.


class MoveOrder(Struct, frozen=True, kw_only=True):
    """Of one PoP shard. A pick: from and to which origin, of which class, how many."""

    pop: str
    picks: tuple[tuple[str, str, str, int], ...]
    budget_per_s: float

    @property
    def units(self) -> int:
        """How many streams."""
        return sum(count for _, _, _, count in self.picks)


class MovesAsked(Struct, frozen=True, kw_only=True):
    """What PoPs were asked; `told`: those that could be."""

    number: int
    deadline: Unix
    left_s: float
    moves_per_s: float
    picks_max: int
    told: tuple[str, ...]
    digest: bytes  # Of the orders to these, `digest_of_orders`.

    def remake(self, moves: Sequence[UnitMoves]) -> bytes:
        """The digest as it is now, of these moves."""
        orders = make_orders(moves, moves_per_s=self.moves_per_s, picks_max=self.picks_max)
        told = [order for order in orders if order.pop in self.told]
        return digest_of_orders(told, self.number, self.deadline, self.left_s)


def make_orders(
    moves: Sequence[UnitMoves], *, moves_per_s: float, picks_max: int
) -> list[MoveOrder]:
    """An order for each PoP. The budget is shared in proportion to what each is to move.

    What is beyond `picks_max` stays, and the next plan sees it there.
    """
    by_pop: dict[str, list[tuple[str, str, str, int]]] = {}
    for move in moves:
        pick = (move.from_origin, move.to_origin, move.priority.label, move.units)
        by_pop.setdefault(move.pop, []).append(pick)
    total = sum(move.units for move in moves)
    orders = []
    for pop, picks in by_pop.items():
        kept = tuple(picks[:picks_max])
        part = sum(count for _, _, _, count in kept) / total
        budget = max(moves_per_s * part, BUDGET_PER_S_MIN)
        orders.append(MoveOrder(pop=pop, picks=kept, budget_per_s=budget))
    return orders


def digest_of_orders(
    orders: Sequence[MoveOrder], number: int, deadline: float, left_s: float
) -> bytes:
    """What two sets of orders have in common if they are the same, byte for byte."""
    body = msgspec.msgpack.encode((number, deadline, left_s, orders))
    return hashlib.sha256(body).digest()[:16]


def digest_of_moves(moves: Sequence[UnitMoves]) -> bytes:
    """Of what a plan came to."""
    return hashlib.sha256(msgspec.msgpack.encode(moves)).digest()[:16]
