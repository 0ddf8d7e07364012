from edged.media.stream_clock import SAME_JUMP_US_MAX, TRANSITION_US_MAX, StreamClock

MS = 1000
HOUR = 3_600_000
START_US = 1_800_000_000_000_000
VIDEO, AUDIO = 1, 2


class Stream:
    """Two tracks with times in ms; audio arrives with its own delay."""

    def __init__(self) -> None:
        self.clock = StreamClock()

    def unit(
        self, track: int, pts_ms: int, arrives_ms: float, *, discontinuity: bool = False
    ) -> float:
        """The unit's wallclock, in ms since the start."""
        us = self.clock.stamp(
            track, pts_ms, 1000, lambda: START_US + int(arrives_ms * MS),
            discontinuity=discontinuity,
        )  # fmt: skip
        return (us - START_US) / MS


def test_the_first_unit_anchors_all_tracks_and_arrival_moves_nothing() -> None:
    stream = Stream()
    assert stream.unit(VIDEO, 500, 0) == 0
    assert stream.unit(AUDIO, 480, 90) == -20
    assert stream.unit(VIDEO, 533, 700) == 33
    assert stream.clock.anchor is not None
    assert stream.clock.anchor.wallclock_us(533, 1000) == START_US + 33 * MS


def test_tracks_that_jump_one_after_the_other_move_the_clock_once() -> None:
    stream = Stream()
    stream.unit(VIDEO, 5000, 0)
    stream.unit(AUDIO, 5000, 0)
    assert stream.unit(VIDEO, HOUR, 1000, discontinuity=True) == 1000
    assert stream.unit(AUDIO, 6010, 1010) == 1010, "still of the old timeline"
    assert stream.unit(VIDEO, HOUR + 33, 1033) == 1033
    assert stream.unit(AUDIO, HOUR - 270, 1300, discontinuity=True) == 730, "the same jump"
    assert stream.unit(VIDEO, HOUR + 330, 1330) == 1330
    assert stream.unit(AUDIO, HOUR - 200, 1400) == 800


def test_after_the_transition_one_anchor_holds_again() -> None:
    stream = Stream()
    stream.unit(VIDEO, 0, 0)
    stream.unit(VIDEO, HOUR, 1000, discontinuity=True)
    assert stream.clock.anchor is None
    over_ms = 1001 + TRANSITION_US_MAX / MS
    stream.unit(VIDEO, HOUR + 5000, over_ms)
    assert stream.clock.anchor is not None
    # A track that never jumped: by the one anchor, whatever that gives.
    assert stream.unit(AUDIO, HOUR + 5100, over_ms) == 6100


def test_a_track_that_jumps_by_too_little_to_be_told_is_found_by_its_arrival() -> None:
    stream = Stream()
    stream.unit(VIDEO, 0, 0)
    stream.unit(AUDIO, 0, 0)
    assert stream.unit(VIDEO, 11_000, 1000, discontinuity=True) == 1000
    assert stream.unit(AUDIO, 10_900, 1000) == 900, "9.9 s ahead: no discontinuity was told"
    assert stream.unit(AUDIO, 10_920, 1020) == 920


def test_a_second_jump_of_the_same_track_is_a_jump_of_its_own() -> None:
    stream = Stream()
    stream.unit(VIDEO, 0, 0)
    stream.unit(VIDEO, HOUR, 1000, discontinuity=True)
    assert stream.unit(VIDEO, 0, 1500, discontinuity=True) == 1500
    assert stream.unit(VIDEO, 33, 1533) == 1533


def test_a_jump_to_elsewhere_is_not_the_same() -> None:
    stream = Stream()
    stream.unit(VIDEO, 0, 0)
    stream.unit(AUDIO, 0, 0)
    stream.unit(VIDEO, HOUR, 1000, discontinuity=True)
    edge_ms = SAME_JUMP_US_MAX // MS
    assert stream.unit(AUDIO, HOUR + edge_ms, 1000, discontinuity=True) == 1000 + edge_ms
    stream.unit(VIDEO, 2 * HOUR, 2000, discontinuity=True)
    assert stream.unit(AUDIO, 2 * HOUR + edge_ms + 1, 2000, discontinuity=True) == 2000
