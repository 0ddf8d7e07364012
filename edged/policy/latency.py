"""What the latency classes mean at an origin: the figures of each, and the choice between them."""

from typing import Annotated

from msgspec import Meta, Struct

from edged.media.latency import (
    DEFAULT,
    HOLD_BACK_S_MAX,
    LATENCY_LABELS,
    PART_HOLD_BACK_MS_MAX,
    Latency,
)
from edged.policy.segment_rule import SegmenterConfig

LABEL_CHARS_MAX = 40  # Of an unknown class, repeated in a log line.


class ClassConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figures of one class."""

    part_ms: Annotated[int, Meta(ge=50, le=1000)] = 200  # PART-TARGET is the next frame multiple.
    segment_s: Annotated[float, Meta(ge=1, le=10)] = 2.0
    target_duration_s: Annotated[int, Meta(ge=1, le=20)] = 4
    parts: bool = True  # Whether playlists list parts; they travel to PoPs in any case.
    part_hold_back_ms: Annotated[int, Meta(ge=0, le=PART_HOLD_BACK_MS_MAX)] = 0
    hold_back_s: Annotated[int, Meta(ge=0, le=HOLD_BACK_S_MAX)] = 0

    def __post_init__(self) -> None:
        """A segment must fit its target duration."""
        if self.segment_s > self.target_duration_s:
            raise ValueError(
                f"segment_s {self.segment_s} exceeds target_duration_s {self.target_duration_s}"
            )


class LowConfig(ClassConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[origin.packager.classes.low]`: joins and changes of rungs within a second."""

    segment_s: Annotated[float, Meta(ge=1, le=10)] = 1.0
    target_duration_s: Annotated[int, Meta(ge=1, le=20)] = 2


class UltraConfig(ClassConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[origin.packager.classes.ultra]`: the shortest parts, for viewers with good networks."""

    part_ms: Annotated[int, Meta(ge=50, le=1000)] = 100
    segment_s: Annotated[float, Meta(ge=1, le=10)] = 1.0
    target_duration_s: Annotated[int, Meta(ge=1, le=20)] = 2


class StandardConfig(ClassConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[origin.packager.classes.standard]`: whole segments alone, for caches and old players."""

    part_ms: Annotated[int, Meta(ge=50, le=1000)] = 500  # Fewer fragments in each segment.
    parts: bool = False


class ClassesConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[origin.packager.classes]`: what a stream key may ask for."""

    low: LowConfig = LowConfig()
    ultra: UltraConfig = UltraConfig()
    standard: StandardConfig = StandardConfig()


class PackagerConfig(ClassConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[origin.packager]`: how long parts and segments are, of streams of no other class."""

    classes: ClassesConfig = ClassesConfig()


def choose_latency(config: PackagerConfig, label: str) -> tuple[SegmenterConfig, str]:
    """The figures of a class, and what is wrong with its name; an unknown one is the default."""
    figures: ClassConfig | None = config if label == DEFAULT else None
    if label in LATENCY_LABELS and label != DEFAULT:
        figures = getattr(config.classes, label)
    if figures is None:
        return segmenter_config(config), find_label_problem(label)
    return segmenter_config(figures, label), ""


def find_label_problem(label: str) -> str:
    """What is wrong with the name of a class; empty when it is one."""
    if label in LATENCY_LABELS:
        return ""
    return f"{label[:LABEL_CHARS_MAX]!r} is none of {', '.join(LATENCY_LABELS)}"


def segmenter_config(config: ClassConfig, label: str = DEFAULT) -> SegmenterConfig:
    """The same for a segmenter."""
    return SegmenterConfig(
        part_ms=config.part_ms,
        segment_s=config.segment_s,
        target_duration_s=config.target_duration_s,
        latency=Latency(
            name=label,
            parts=config.parts,
            part_hold_back_ms=config.part_hold_back_ms if config.parts else 0,
            hold_back_s=config.hold_back_s,
        ),
    )


def describe_latency(config: SegmenterConfig) -> str:
    """A class in plain words: `low: segments of 1 s, parts of 200 ms`."""
    parts = f"parts of {config.part_ms} ms" if config.latency.parts else "no parts"
    return f"{config.latency.name}: segments of {config.segment_s:g} s, {parts}"
