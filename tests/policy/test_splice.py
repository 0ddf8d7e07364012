"""A successor makes of the same units the same parts, wherever the first one stopped."""

import random
from fractions import Fraction

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, Part
from edged.media.track import Track
from edged.policy.segment_rule import PARTS_MAX, SegmenterConfig
from edged.policy.segmenter import Segmenter
from edged.policy.splice import (
    STATE_BYTES_MAX,
    VERSION,
    Resumed,
    _encode_fraction,
    read_state,
    save,
)
from tests.policy.ladder import Rung, make_ladder
from tests.policy.synthetic import (
    CmafWriter,
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)

THIRTY = Fraction(30)
TRACKS = (video_track(THIRTY), audio_track())


def stream(
    seconds: float = 7, *, reorder: int = 0, gop_s: float = 1, rates: tuple[int, ...] = (30,)
) -> list[AccessUnit]:
    """Video, at one rate after the other, and audio."""
    times: list[int] = []
    for rate in rates:
        start = times[-1] + 90_000 // rate if times else 0
        times += [start + dts for dts in video_times(Fraction(rate), seconds / len(rates))]
    pictures = video_units(times, gop_s, reorder=reorder)
    units = in_order((90_000, pictures), (48_000, audio_units(seconds)))
    for unit in units:
        unit.payload = unit.seq.to_bytes(4, "big") * 10
    return units


def begin(tracks: tuple[Track, ...] = TRACKS) -> Segmenter:
    segmenter = Segmenter(SegmenterConfig(), CmafWriter())
    for track in tracks:
        segmenter.add_track(track)
    return segmenter


def feed(segmenter: Segmenter, units: list[AccessUnit]) -> list[PackagedEvent]:
    return [event for unit in units for event in segmenter.add_unit(unit)]


def go_on(resumed: Resumed, units: list[AccessUnit]) -> list[PackagedEvent]:
    return feed(resumed.segmenter, [unit for unit in units if not resumed.takes(unit)])


def check_splice(units: list[AccessUnit], at: int, tracks: tuple[Track, ...] = TRACKS) -> None:
    """Stop after `at` units: what follows is the same from the first one and its successor."""
    first = begin(tracks)
    feed(first, units[:at])
    state = read_state(save(first))
    expected = [*feed(first, units[at:]), *first.end("over")]
    again = [unit for unit in units if unit.seq > state.packaged_seq]
    resumed = Resumed(state, CmafWriter())
    assert [*go_on(resumed, again), *resumed.segmenter.end("over")] == expected
    assert resumed.segmenter.statistics() == first.statistics()


@hypothesis.given(
    st.integers(0, 500),
    st.sampled_from([0, 6000]),
    st.sampled_from([0.5, 1, 2]),
    st.sampled_from([(30,), (30, 60), (25, 30), (60, 24, 30)]),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_a_successor_makes_the_same_parts(
    at: int, reorder: int, gop_s: float, rates: tuple[int, ...]
) -> None:
    units = stream(reorder=reorder, gop_s=gop_s, rates=rates)
    check_splice(units, min(at, len(units)))


@pytest.mark.parametrize("rates", [(30, 60), (60, 25), (25, 30)])
def test_a_successor_goes_on_through_a_change_of_pace(rates: tuple[int, ...]) -> None:
    """Stopped at each unit around it: where parts end and begin is then known least."""
    units = stream(6, rates=rates)
    change = next(unit.seq for unit in units if unit.track_id == 1 and unit.dts >= 3 * 90_000)
    for at in range(change - 10, change + 40):
        check_splice(units, at)


@hypothesis.given(st.integers(0, 2**32), st.integers(0, 400))
@hypothesis.settings(max_examples=40, deadline=None)
def test_a_successor_makes_the_same_parts_of_a_broken_stream(seed: int, at: int) -> None:
    """Jumps, discontinuities and silences, before the splice and after it."""
    rng = random.Random(seed)  # noqa: S311 - replayable, not secret
    units = stream(6)
    for _ in range(rng.randrange(4)):
        index, shift_s = rng.randrange(len(units)), rng.choice([-900, 5, 3600])
        for unit in units[index:]:
            ticks = shift_s * (90_000 if unit.track_id == 1 else 48_000)
            unit.pts += ticks
            unit.dts += ticks
        units[index].discontinuity = rng.random() < 0.5
    silent = rng.randrange(3)
    cut = rng.randrange(len(units))
    units = [unit for unit in units if unit.seq < cut or unit.track_id != silent]
    check_splice(units, min(at, len(units)))


@hypothesis.given(st.integers(0, 2**32), st.integers(0, 900))
@hypothesis.settings(max_examples=60, deadline=None)
def test_a_successor_makes_the_same_parts_of_several_rungs(seed: int, at: int) -> None:
    """Aligned or not, in any order of sending, and where some of them stop."""
    rng = random.Random(seed)  # noqa: S311 - replayable, not secret
    rungs = [
        Rung(
            gop_s=rng.choice([0.5, 1, 2, 3]),
            offset_s=rng.choice([0, 0, 0.3, 1]),
            rate=Fraction(rng.choice([24, 30, 60])),
            reorder=rng.choice([0, 6000]),
            shift=rng.choice([0, 0, 90, -400]),
        )
        for _ in range(rng.randint(2, 4))
    ]
    tracks, units = make_ladder(rungs, seconds=8, audio=rng.randint(0, 2))
    if rng.random() < 0.5:
        silent, begin_s, end_s = rng.choice([1, 3]), rng.uniform(0, 8), rng.uniform(0, 9)
        units = [u for u in units if u.track_id != silent or not begin_s <= u.dts / 90_000 < end_s]
    check_splice(units, min(at, len(units)), tuple(tracks))


def test_a_successor_goes_on_while_units_are_held() -> None:
    """The second rung's key frames come first: its units wait for the leading one's."""
    tracks, units = make_ladder([Rung(reorder=0), Rung(reorder=12_000)], seconds=7)
    first = begin(tuple(tracks))
    held = 0
    for at, unit in enumerate(units):
        if first._held:
            held += 1
            check_splice(units, at, tuple(tracks))
        first.add_unit(unit)
    assert held >= 12


def test_units_that_are_needed_and_lost_are_told() -> None:
    units = stream()
    first = begin()
    feed(first, units[:300])
    state = read_state(save(first))
    resumed = Resumed(state, CmafWriter())
    later = [unit for unit in units if unit.seq > state.packaged_seq][1:]
    with pytest.raises(RemoteProtocolError, match=f"unit {state.packaged_seq + 1} is needed"):
        go_on(resumed, later)


def test_what_was_there_before_is_taken_once_more_without_a_part() -> None:
    units = stream()
    first = begin()
    feed(first, units[:300])
    state = read_state(save(first))
    resumed = Resumed(state, CmafWriter())
    assert state.packaged_seq < state.last_seq == 299
    assert all(resumed.takes(unit) for unit in units[: state.last_seq + 1])
    assert not resumed.takes(units[state.last_seq + 1])
    part = next(e for e in go_on(resumed, units[300:]) if isinstance(e, Part))
    assert part.last_seq >= state.packaged_seq + 1


def test_a_state_is_small() -> None:
    first = begin()
    feed(first, stream()[:300])
    assert len(save(first)) < 4096


BROKEN: tuple[tuple[int, object, str], ...] = (
    (4, {}, "a track that it does not have"),
    (7, {9: []}, "holds units of a rendition that it does not have"),
    (9, 99, "leader 99"),
)


def test_a_state_that_cannot_be_read_is_refused() -> None:
    first = begin()
    feed(first, stream()[:300])
    good = save(first)
    raw = msgspec.msgpack.decode(good)
    with pytest.raises(RemoteProtocolError, match=f"of {STATE_BYTES_MAX + 1} bytes exceeds"):
        read_state(bytes(STATE_BYTES_MAX + 1))
    with pytest.raises(RemoteProtocolError, match="cannot be read"):
        read_state(good[:-1])
    for spoilt in (b"\xff", b"\xd9"):  # No UTF-8; another length.
        at = good.index(b"avc1")
        with pytest.raises(RemoteProtocolError, match="cannot be read"):
            read_state(good[:at] + spoilt + good[at + 1 :])
    other = msgspec.msgpack.encode([VERSION + 1, *raw[1:]])
    with pytest.raises(RemoteProtocolError, match=f"version {VERSION + 1}, not {VERSION}"):
        read_state(other)
    for index, value, message in BROKEN:
        broken = [*raw[:index], value, *raw[index + 1 :]]
        with pytest.raises(RemoteProtocolError, match=message):
            read_state(msgspec.msgpack.encode(broken))


@pytest.mark.parametrize(
    ("field", "value"), [("index", -15), ("index", PARTS_MAX + 5), ("msn", -1)]
)
def test_a_state_that_names_no_part_is_refused(field: str, value: int) -> None:
    first = begin()
    feed(first, stream()[:300])
    state = read_state(save(first))
    cutter = next(iter(state.cutters.values()))
    setattr(cutter, field, value)
    with pytest.raises(RemoteProtocolError, match=r"cannot be read: Expected `int` [<>]= -?\d+"):
        read_state(msgspec.msgpack.encode(state, enc_hook=_encode_fraction))


def test_a_state_of_segments_beyond_their_target_is_refused() -> None:
    state = read_state(save(begin()))
    state.config = msgspec.structs.replace(state.config, segment_s=4.5)
    with pytest.raises(RemoteProtocolError, match=r"of 4\.5 s, longer than their target of 4 s"):
        read_state(msgspec.msgpack.encode(state, enc_hook=_encode_fraction))


@hypothesis.given(st.binary(max_size=200))
def test_garbage_raises_only_a_protocol_error(garbage: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_state(garbage)
