"""Who fits a run and who does not, what is held meanwhile, and what goes on."""

from collections.abc import Sequence

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.media.access_unit import AccessUnit
from edged.media.stream import Grant, PriorityClass
from edged.media.track import Codec, CodecConfig, Track, TrackFormat, formats_of
from edged.policy import joining
from edged.policy.joining import HELD_UNITS_MAX, HOLD_PICTURE_S, HOLD_S, Joining, can_go_on


def track(
    track_id: int = 1, codec: Codec = Codec.H264, *, config_id: int = 0, width: int = 1280
) -> Track:
    timescale = 90_000 if codec is not Codec.AAC else 48_000
    config = CodecConfig(codec=codec, record=bytes(1), codec_string=str(codec), width=width)
    return Track(
        track_id=track_id, codec=codec, timescale=timescale, config=config, config_id=config_id
    )


VIDEO, AUDIO = track(1), track(2, Codec.AAC, width=0)
RUN = formats_of([VIDEO, AUDIO])
CONFIGS = {1: (4, VIDEO.config), 2: (0, AUDIO.config)}


def picture(at_s: float, *, key: bool = False, payload: bytes = b"p") -> AccessUnit:
    return make(VIDEO, at_s, key=key, payload=payload)


def sound(at_s: float) -> AccessUnit:
    return make(AUDIO, at_s, key=True)


def make(of: Track, at_s: float, *, key: bool, payload: bytes = b"p") -> AccessUnit:
    at = round(at_s * of.timescale)
    return AccessUnit(
        track_id=of.track_id, seq=0, config_id=of.config_id, pts=at, dts=at, wallclock_us=0,
        payload=payload, random_access=key,
    )  # fmt: skip


def begin(tracks: Sequence[Track] = (VIDEO, AUDIO), **fields: object) -> Joining:
    values: dict[str, object] = {"formats": RUN, "configs": CONFIGS}
    newcomer = Joining(**(values | fields))  # type: ignore[arg-type]
    for one in tracks:
        newcomer.add_track(one)
    return newcomer


def units_of(items: Sequence[Track | AccessUnit]) -> list[AccessUnit]:
    return [item for item in items if isinstance(item, AccessUnit)]


def test_the_same_tracks_go_on_behind_a_discontinuity_of_each() -> None:
    newcomer = begin()
    assert newcomer.fits is None
    assert newcomer.take() == []
    newcomer.add_units([picture(0, key=True), picture(0.03), sound(0), sound(0.02)])
    assert newcomer.fits
    video, audio, *units = newcomer.take()
    assert isinstance(video, Track)
    assert (video.config_id, audio.config_id) == (4, 0)  # The run's, as the configuration is.
    assert [(u.track_id, u.config_id, u.discontinuity) for u in units_of(units)] == [
        (1, 4, True), (1, 4, False), (2, 0, True), (2, 0, False),
    ]  # fmt: skip
    assert newcomer.done
    assert newcomer.config_shifts == {1: 4, 2: 0}


def test_another_size_is_a_new_configuration() -> None:
    newcomer = begin([track(1, width=640, config_id=2), AUDIO])
    newcomer.add_units([picture(0, key=True).replaced(config_id=2)])
    newcomer.add_track(track(1, width=320, config_id=3))
    first, _, unit, second = newcomer.take()
    assert isinstance(unit, AccessUnit)
    assert (first.config_id, unit.config_id, second.config_id) == (5, 5, 6)
    assert not newcomer.done  # No sound has come as yet.
    newcomer.add_units([sound(0)])
    assert [u.discontinuity for u in units_of(newcomer.take())] == [True]
    assert newcomer.done


def test_elsewhere_configurations_count_from_above_all_there_were() -> None:
    newcomer = begin(configs=None, configs_from=7 << 10)
    newcomer.add_units([picture(0, key=True)])
    assert [item.config_id for item in newcomer.take()] == [7 << 10] * 3


@pytest.mark.parametrize(
    "other",
    [
        track(1, Codec.H265),
        track(3, Codec.AAC),
    ],
    ids=["codec", "one more"],
)
def test_other_tracks_do_not_fit_and_nothing_is_lost(other: Track) -> None:
    newcomer = begin([VIDEO])
    newcomer.add_units([picture(0, key=True)])
    newcomer.add_track(other)
    assert newcomer.fits is False
    newcomer.add_units([picture(0.03).replaced(track_id=other.track_id)])
    items = newcomer.take()
    assert items[0] is VIDEO
    assert items[2] is other
    assert [u.discontinuity for u in units_of(items)] == [False, False]
    assert newcomer.config_shifts == {}


def test_another_sample_rate_keeps_the_run_s_timescale() -> None:
    config = msgspec.structs.replace(AUDIO.config, sample_rate=44_100)
    slower = msgspec.structs.replace(AUDIO, timescale=44_100, config=config)
    newcomer = begin([VIDEO, slower])
    newcomer.add_units([picture(2, key=True), make(slower, 2, key=True), make(slower, 3, key=True)])
    _, audio, _, first, second = newcomer.take()
    assert isinstance(audio, Track)
    assert (audio.timescale, audio.config_id, audio.config) == (48_000, 1, config)
    assert isinstance(first, AccessUnit)
    assert isinstance(second, AccessUnit)
    assert (first.pts, first.dts, second.dts) == (96_000, 96_000, 144_000)
    assert not newcomer.done, "what comes later passes through it too"
    newcomer.add_units([make(slower, 4, key=True)])
    (later,) = newcomer.take()
    assert isinstance(later, AccessUnit)
    assert (later.dts, later.config_id, later.discontinuity) == (192_000, 1, False)


def test_data_tracks_count_for_nothing() -> None:
    data = track(9, Codec.ID3)
    assert formats_of([VIDEO, AUDIO, data]) == RUN
    newcomer = begin([VIDEO, data, AUDIO])
    newcomer.add_units([picture(0, key=True)])
    assert newcomer.fits


def test_who_lacks_a_track_is_known_after_a_while() -> None:
    newcomer = begin([VIDEO])
    newcomer.add_units([picture(0, key=True), picture(HOLD_S - 0.01)])
    assert newcomer.fits is None
    newcomer.add_units([picture(HOLD_S)])
    assert newcomer.fits is False
    assert len(units_of(newcomer.take())) == 3


def test_who_comes_amid_a_gop_goes_on_with_the_next_picture_to_begin_at() -> None:
    newcomer = begin()
    newcomer.add_units([picture(5), sound(5), picture(5.5), sound(5.99), sound(6)])
    assert newcomer.fits is None
    newcomer.add_units([picture(6, key=True), sound(6.02)])
    units = units_of(newcomer.take())
    assert [(u.track_id, u.discontinuity) for u in units] == [(2, True), (1, True), (2, False)]
    assert newcomer.units_dropped == 4
    assert newcomer.done


def test_without_a_picture_sound_goes_on_alone_and_pictures_when_one_can_begin() -> None:
    newcomer = begin()
    newcomer.add_units([picture(0), sound(0), picture(HOLD_PICTURE_S)])
    assert newcomer.fits
    assert [u.track_id for u in units_of(newcomer.take())] == [2]
    newcomer.add_units([picture(4), sound(4)])
    assert [u.track_id for u in units_of(newcomer.take())] == [2]
    newcomer.add_units([picture(5, key=True), picture(5.03)])
    assert [u.discontinuity for u in units_of(newcomer.take())] == [True, False]
    assert newcomer.done


def test_a_run_of_sound_alone_waits_for_no_picture() -> None:
    newcomer = Joining(formats_of([AUDIO]), {2: (0, AUDIO.config)})
    newcomer.add_track(AUDIO)
    newcomer.add_units([sound(0)])
    assert newcomer.fits
    assert newcomer.take()
    assert newcomer.done


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    newcomer = begin()
    for number in range(HELD_UNITS_MAX - 1):
        newcomer.add_units([sound(number / HELD_UNITS_MAX)])
    assert newcomer.fits is None
    newcomer.add_units([sound(0.9999)])
    assert newcomer.fits
    monkeypatch.setattr(joining, "HELD_BYTES_MAX", 10)
    newcomer = begin([VIDEO])
    newcomer.add_units([picture(0, key=True, payload=bytes(9))])
    assert newcomer.fits is None
    newcomer.add_units([picture(0, payload=b"1")])
    assert newcomer.fits is False


def test_times_that_go_back_are_not_waited_out() -> None:
    newcomer = begin([VIDEO])
    newcomer.add_units([picture(10, key=True), picture(2)])
    assert newcomer.fits is False


def test_a_title_is_no_hindrance_but_another_class_is() -> None:
    grant = Grant(channel="alice", title="one", tags=("a",), expires_at=5.0)
    assert can_go_on(grant, msgspec.structs.replace(grant, title="two", expires_at=None))
    for fields in ({"priority": PriorityClass.PARTNER}, {"tags": ()}, {"record": True}):
        assert not can_go_on(grant, msgspec.structs.replace(grant, **fields))


@hypothesis.given(
    st.lists(
        st.tuples(st.sampled_from([1, 2]), st.booleans(), st.integers(0, 400)),
        max_size=60,
    ),
    st.lists(
        st.sampled_from([VIDEO, AUDIO, track(1, Codec.AV1), track(3, Codec.OPUS)]), max_size=3
    ),
    st.data(),
)
def test_whoever_comes_something_sound_goes_on(
    sent: list[tuple[int, bool, int]], late: list[Track], data: st.DataObject
) -> None:
    """In order, each track from a picture that one may begin at, and all of it without a fit."""
    newcomer = begin([VIDEO, AUDIO] if data.draw(st.booleans()) else [VIDEO])
    at = dict.fromkeys((1, 2), 0.0)
    given: list[AccessUnit] = []
    went: list[Track | AccessUnit] = []
    for number, (track_id, key, step_ms) in enumerate(sent):
        if late and data.draw(st.integers(0, 9)) == 0:
            newcomer.add_track(late.pop())
        of = VIDEO if track_id == 1 else AUDIO
        if of is AUDIO and AUDIO.track_id not in newcomer._timescales:
            continue
        at[track_id] += step_ms / 1000
        unit = make(of, at[track_id], key=key or of is AUDIO, payload=str(number).encode())
        given.append(unit.replaced())
        newcomer.add_units([unit])
        went += newcomer.take()
    units = units_of([*went, *newcomer.take()])
    order = [int(unit.payload) for unit in units]
    assert order == sorted(order)
    if newcomer.fits is None:
        assert units == []
        return
    firsts: dict[int, AccessUnit] = {}
    for unit in units:
        firsts.setdefault(unit.track_id, unit)
    assert all(unit.random_access for unit in firsts.values())
    if newcomer.fits:
        marked = [unit for unit in units if unit.discontinuity]
        assert {id(unit) for unit in marked} == {id(unit) for unit in firsts.values()}
    else:
        missing = {unit.payload for unit in given} - {unit.payload for unit in units}
        assert all(not unit.random_access for unit in given if unit.payload in missing)


def test_formats_are_what_never_changes() -> None:
    assert (TrackFormat(1, "h264", 90_000), TrackFormat(2, "aac", 48_000)) == RUN
