"""Heartbeats as PoPs hear them: one tick late, and missing when an origin fails."""

import hypothesis
from hypothesis import strategies as st

from edged.media.routing import OriginState
from edged.media.stream import PriorityClass
from edged.policy.capacitor import Capacitor
from edged.tools.simulate.board import TICK_S, Board
from edged.tools.simulate.streams import Site, Stream
from tests.tools.simulate.test_streams import stream


def play(board: Board, ticks: range) -> list[tuple[int, str, OriginState]]:
    return [
        (tick, change.origin, change.after)
        for tick in ticks
        for change in board.tick(tick * TICK_S)
    ]


def test_what_is_sent_is_heard_a_tick_later() -> None:
    site = Site(0, "a", 10)
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
    sites = [Site(index, name, 10) for index, name in enumerate("abc")]
    board = Board(sites)
    play(board, range(50))
    board.catch_up(5.0)
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


@hypothesis.given(st.lists(st.integers(0, 5), min_size=30, max_size=80), st.integers(5, 25))
@hypothesis.settings(max_examples=30, deadline=None)
def test_what_is_taken_in_less_often_is_believed_alike(changes: list[int], fails: int) -> None:
    """Beside a Capacitor that takes in every heartbeat: same states and rooms in every tick."""
    sites = [Site(index, name, 50) for index, name in enumerate("abc")]
    board, every = Board(sites), Capacitor()
    held: list[Stream] = []
    for tick, change in enumerate(changes):
        now = tick * TICK_S
        board.tick(now)
        for report in board.heard:
            every.heartbeat(report, now)
        if now >= every.next_timeout() - 1e-9:
            every.handle_timeout(now)
        for site in sites:
            assert board.capacitor.state(site.name) is every.state(site.name)
            for priority in PriorityClass:
                assert board.capacitor.room(site.name, priority, now) == every.room(
                    site.name, priority, now
                )
        if tick in (fails, fails + 20):
            board.catch_up(now)
            sites[1].frozen = tick == fails
        for number in range(change):
            one = stream(1000 * tick + number)
            if sites[number % 2 * 2].take(one):
                held.append(one)
        if change == 0 and held:
            gone = held.pop(0)
            next(site for site in sites if gone in site.streams).give_back(gone)
