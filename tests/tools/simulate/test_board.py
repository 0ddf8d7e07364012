"""Heartbeats as PoPs hear them: one tick late, and missing when an origin fails."""

from edged.media.routing import OriginState
from edged.media.stream import PriorityClass
from edged.tools.simulate.board import TICK_S, Board
from edged.tools.simulate.streams import Site
from tests.tools.simulate.test_streams import stream


def play(board: Board, ticks: range) -> list[tuple[int, str, OriginState]]:
    return [
        (tick, change.origin, change.after)
        for tick in ticks
        for change in board.tick(tick * TICK_S)
    ]


def test_what_is_sent_is_heard_a_tick_later() -> None:
    site = Site(0, "a", 10, 0.0)
    board = Board([site])
    assert board.tick(0.0) == []
    site.take(stream(1))
    board.tick(TICK_S)
    assert board.heard_at == TICK_S
    assert board.capacitor.room("a", PriorityClass.BASIC, TICK_S) == 10
    board.tick(2 * TICK_S)
    assert board.capacitor.room("a", PriorityClass.BASIC, 2 * TICK_S) == 9
    assert board.takes("a")
    assert not board.takes("stranger")


def test_a_frozen_origin_is_suspected_then_down_then_on_probation() -> None:
    sites = [Site(index, name, 10, 0.0) for index, name in enumerate("abc")]
    board = Board(sites)
    play(board, range(50))
    sites[1].frozen = True
    # What it sent at tick 49 is heard at 50.
    assert play(board, range(50, 60)) == [
        (52, "b", OriginState.SUSPECT),
        (53, "b", OriginState.DOWN),
    ]
    assert not board.takes("b")
    sites[1].frozen = False
    changes = play(board, range(60, 200))
    assert [(origin, after) for _, origin, after in changes] == [
        ("b", OriginState.PROBATION),
        ("b", OriginState.UP),
    ]
