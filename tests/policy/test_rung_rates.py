"""Rungs of a source that has few bits: never more than it has, and soon more again."""

import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.ladder import VideoRung
from edged.media.track import Codec
from edged.policy.rung_rates import BITRATE_BPS_MIN, RungRates, SourceRate

HZ = 90_000
SIZES = ((1280, 720), (854, 480), (640, 360), (284, 160))
RATES = (2_400_000, 1_300_000, 700_000, 250_000)
PIXELS = 1920 * 1080


def make_rung(place: int, bitrate: int) -> VideoRung:
    width, height = SIZES[place]
    return VideoRung(
        name=f"{height}p", track_id=place, width=width, height=height, bitrate_bps=bitrate,
        maxrate_bps=bitrate * 11 // 10, buffer_bits=bitrate * 11 // 10, level=31,
        preset="veryfast", cost=1.0,
    )  # fmt: skip


RUNGS = [make_rung(place, bitrate) for place, bitrate in enumerate(RATES)]


def limit(bps: int, rates: RungRates | None = None, pixels: int = PIXELS) -> list[int]:
    rates = rates or RungRates(Codec.H264)
    return [rung.bitrate_bps for rung in rates.limit(RUNGS, bps, pixels)]


def feed(rate: SourceRate, bps: int, seconds: float, at: int = 0, gop: float = 2.0) -> int:
    """So many pictures, 30 a second, of a constant rate with key frames that have half of it."""
    every = round(30 * gop)
    per_gop = bps * gop / 8
    for number in range(round(30 * seconds)):
        is_key = number % every == 0
        size = per_gop / 2 if is_key else per_gop / 2 / max(1, every - 1)
        rate.add(at + number * HZ // 30, round(size), random_access=is_key)
    return at + round(seconds * HZ)


def test_a_source_with_enough_changes_nothing() -> None:
    assert limit(6_000_000) == list(RATES)
    assert RungRates(Codec.H264).limit(RUNGS, 6_000_000, PIXELS) == RUNGS


def test_nothing_is_changed_while_nothing_is_known() -> None:
    assert limit(0) == list(RATES)


def test_few_bits_are_shared_out_downwards() -> None:
    few = limit(1_000_000)
    for place, bitrate in enumerate(few):
        assert 0.8 * 0.8 ** (place + 1) * 1_000_000 <= bitrate or bitrate == RATES[place]
        assert bitrate <= 0.8 ** (place + 1) * 1_000_000
    assert few[-1] == 250_000


def test_one_of_the_source_s_size_may_have_as_much_and_of_a_better_codec_more() -> None:
    alike = limit(1_000_000, pixels=1280 * 720)
    assert 800_000 < alike[0] <= 1_000_000
    hevc = limit(1_000_000, RungRates(Codec.H265), pixels=1280 * 720)
    assert 1_200_000 < hevc[0] <= 1_500_000


def test_what_the_rate_control_may_have_shrinks_with_it() -> None:
    (first, *_) = RungRates(Codec.H264).limit(RUNGS, 1_000_000, PIXELS)
    assert (
        first.maxrate_bps == first.buffer_bits == pytest.approx(1.1 * first.bitrate_bps, rel=1e-3)
    )
    assert (first.name, first.level, first.track_id) == ("720p", 31, 0)


def test_a_rate_that_wavers_opens_no_encoder_anew_each_time() -> None:
    rates = RungRates(Codec.H264)
    limit(1_010_000, rates)
    seen = {tuple(limit(bps, rates)) for bps in [985_000, 1_015_000] * 20}
    assert len(seen) == 1
    assert limit(4_000_000, rates) == list(RATES), "it comes back"


def test_very_few_leave_the_least() -> None:
    assert set(limit(1)) == {BITRATE_BPS_MIN}
    small = [make_rung(3, 60_000)]
    assert [r.bitrate_bps for r in RungRates(Codec.H264).limit(small, 1, PIXELS)] == [60_000]


@hypothesis.given(
    conf=st.lists(st.integers(50_000, 50_000_000), min_size=1, max_size=4),
    sources=st.lists(st.integers(0, 60_000_000), min_size=1, max_size=10),
    codec=st.sampled_from([Codec.H264, Codec.H265, Codec.AV1]),
    pixels=st.integers(1, 8192 * 4352),
)
def test_whatever_the_source_has(
    conf: list[int], sources: list[int], codec: Codec, pixels: int
) -> None:
    rungs = [make_rung(place, bitrate) for place, bitrate in enumerate(conf)]
    rates = RungRates(codec)
    gain = {Codec.H264: 1.0, Codec.H265: 1.5, Codec.AV1: 1.8}[codec]
    for bps in sources:
        given = rates.limit(rungs, bps, pixels)
        assert [r.track_id for r in given] == [r.track_id for r in rungs]
        for rung, most in zip(given, conf, strict=True):
            assert 0 < rung.bitrate_bps <= rung.maxrate_bps
            assert rung.bitrate_bps <= most
            if bps:
                assert rung.bitrate_bps <= max(gain * bps, BITRATE_BPS_MIN)
        if bps:
            for upper, lower in itertools.pairwise(r.bitrate_bps for r in given):
                assert lower <= max(upper, BITRATE_BPS_MIN)


@pytest.mark.parametrize("gop", [0.5, 1.0, 2.0, 4.0, 10.0])
def test_the_rate_of_a_source(gop: float) -> None:
    rate = SourceRate(HZ)
    assert rate.bps == 0
    feed(rate, 3_000_000, 30, gop=gop)
    if gop <= 4:
        assert rate.bps == pytest.approx(3_000_000, rel=0.1)
    else:  # Four seconds with the key frame are more than the rest.
        assert 3_000_000 * 0.9 <= rate.bps <= 3_000_000 * 2


def test_it_is_known_after_a_window_and_not_sooner() -> None:
    rate = SourceRate(HZ)
    end = feed(rate, 3_000_000, 2)
    assert rate.bps == 0
    rate.add(end, 10, random_access=True)
    assert rate.bps == pytest.approx(3_000_000, rel=0.1)


def test_a_rise_counts_at_once_and_a_fall_after_ten_seconds() -> None:
    rate = SourceRate(HZ)
    end = feed(rate, 300_000, 10)
    end = feed(rate, 6_000_000, 2, end)
    rate.add(end, 10, random_access=True)
    assert rate.bps == pytest.approx(6_000_000, rel=0.1)
    last = feed(rate, 300_000, 8, end)
    assert rate.bps == pytest.approx(6_000_000, rel=0.1)
    feed(rate, 300_000, 6, last)
    assert rate.bps == pytest.approx(300_000, rel=0.1)


def test_another_timeline_is_another_source() -> None:
    rate = SourceRate(HZ)
    feed(rate, 6_000_000, 5, at=1_000 * HZ)
    feed(rate, 300_000, 0.5, at=0)
    assert rate.bps == 0
    feed(rate, 300_000, 0.5, at=500 * HZ)
    assert rate.bps == 0
