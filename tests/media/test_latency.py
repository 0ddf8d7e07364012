"""What travels with a rendition about its latency."""

import typing

import msgspec
import pytest

from edged.media.latency import DEFAULT, DEFAULT_LATENCY, LATENCY_LABELS, Latency, LatencyLabel
from edged.media.parts import Rendition
from edged.media.track import Kind


def test_the_labels_are_those_of_the_type() -> None:
    assert typing.get_args(LatencyLabel) == LATENCY_LABELS
    assert LATENCY_LABELS[0] == DEFAULT == DEFAULT_LATENCY.name


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ("part_hold_back_ms", 30_000, 30_001),
        ("hold_back_s", 300, 301),
        ("hold_back_s", 0, -1),
        ("name", "a" * 16, "a" * 17),
        ("name", "ultra", "Ultra\n"),
    ],
)
def test_at_the_limit_and_one_past_it(field: str, right: object, wrong: object) -> None:
    assert getattr(msgspec.convert({field: right}, Latency), field) == right
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({field: wrong}, Latency)


def test_a_rendition_of_an_older_peer_has_the_default() -> None:
    made = Rendition(
        name="v0",
        kind=Kind.VIDEO,
        timescale=1000,
        codec_string="avc1.64001f",
        part_target_us=200_000,
        target_duration_s=4,
    )
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(made))
    del told["latency"]
    assert msgspec.convert(told, Rendition) == made
