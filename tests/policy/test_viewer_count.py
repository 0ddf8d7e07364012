"""The estimate of viewers, against players whose number is known."""

from edged.policy.viewer_count import WINDOW_S, ViewerCount


def test_low_latency_players_are_those_that_a_part_releases() -> None:
    count = ViewerCount(0.0)
    for part in range(20):
        count.note_released(7 if part % 3 else 5, part * 0.2)  # Two are late now and then.
    assert count.viewers(4.0) == 7


def test_players_of_all_rungs_are_counted() -> None:
    count = ViewerCount(0.0)
    for part in range(20):
        for rung, players in (("v0", 7), ("v1", 3), ("v2", 1)):
            count.note_released(players, part * 0.2, rung)
    assert count.viewers(4.0) == 11


def test_each_rung_has_its_players() -> None:
    count = ViewerCount(0.0)
    for rung, players in (("v0", 7), ("v1", 3)):
        count.note_released(players, 1.0, rung)
    assert count.rungs(1.0) == {"v0": 7, "v1": 3}
    count.note_released(2, 1.0 + WINDOW_S, "v1")
    assert count.rungs(1.0 + WINDOW_S) == {"v0": 7, "v1": 3}
    assert count.rungs(1.0 + 2 * WINDOW_S) == {"v1": 2}
    assert count.rungs(1.0 + 9 * WINDOW_S) == {}


def test_those_who_left_are_forgotten_after_two_windows() -> None:
    count = ViewerCount(0.0)
    count.note_released(7, 1.0)
    count.note_released(2, 1.0 + WINDOW_S)
    assert count.viewers(1.0 + WINDOW_S) == 7
    assert count.viewers(1.0 + 2 * WINDOW_S) == 2
    assert count.viewers(1.0 + 9 * WINDOW_S) == 0


def test_plain_players_are_counted_once_a_window() -> None:
    count = ViewerCount(0.0)
    polled: list[int | None] = [None, None, None]
    for second in range(0, 20, 2):
        for player, before in enumerate(polled):
            polled[player] = count.note_poll(before, float(second))
    assert count.viewers(19.0) == 3


def test_a_first_poll_is_any_player_starting() -> None:
    count = ViewerCount(0.0)
    for _ in range(9):
        count.note_poll(None, 1.0)
    assert count.viewers(1.0) == 0
