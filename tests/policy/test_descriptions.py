"""Descriptions: limits, what may not be in them, and what outlives a lost connection."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.stream import Description, DescriptionChange, Grant
from edged.policy.descriptions import (
    CATEGORY_CHARS_MAX,
    KEPT_S,
    LABEL_CHARS_MAX,
    LABELS_MAX,
    TITLE_CHARS_MAX,
    KeptDescriptions,
    cut,
    find_problem,
)

CHANGED = Description(title="now", category="Music", labels=("live", "jazz"))
GRANT = Grant(channel="alice", title="by key", tags=("event:x",))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (DescriptionChange(), ""),
        (DescriptionChange(title=""), ""),
        (DescriptionChange(title="x" * TITLE_CHARS_MAX), ""),
        (DescriptionChange(title="x" * (TITLE_CHARS_MAX + 1)), "title: 201 characters exceed 200"),
        (DescriptionChange(category="x" * CATEGORY_CHARS_MAX), ""),
        (
            DescriptionChange(category="x" * (CATEGORY_CHARS_MAX + 1)),
            "category: 101 characters exceed 100",
        ),
        (DescriptionChange(labels=tuple("abcdefghij")), ""),
        (DescriptionChange(labels=tuple("abcdefghijk")), f"tags: 11 exceed {LABELS_MAX}"),
        (DescriptionChange(labels=("x" * LABEL_CHARS_MAX,)), ""),
        (DescriptionChange(labels=("a", "x" * 51)), "tags[1]: 51 characters exceed 50"),
        (DescriptionChange(labels=("a", "a")), "tags: one is there twice"),
        (DescriptionChange(labels=(" ",)), "tags: one is empty"),
        (DescriptionChange(title="a\nb"), "title: the character U+000A is not allowed"),
        (DescriptionChange(category="\x9b31m"), "category: the character U+009B is not allowed"),
        (DescriptionChange(labels=("\u202eevil",)), "tags[0]: the character U+202E is not allowed"),
        (DescriptionChange(title="Škoda, 日本語 👩‍👩‍👧"), ""),
    ],
)
def test_what_may_be_said(change: DescriptionChange, problem: str) -> None:
    assert find_problem(change) == problem


@hypothesis.given(st.text())
def test_what_is_cut_has_no_problem(text: str) -> None:
    assert find_problem(DescriptionChange(title=cut(text, TITLE_CHARS_MAX))) == ""
    if find_problem(DescriptionChange(title=text)) == "":
        assert cut(text, TITLE_CHARS_MAX) == text


def test_a_change_leaves_what_it_does_not_name() -> None:
    assert DescriptionChange().apply(CHANGED) == CHANGED
    assert DescriptionChange(title="").apply(CHANGED).title == ""
    assert DescriptionChange(labels=()).apply(CHANGED) == Description(title="now", category="Music")


def test_a_publication_that_comes_back_has_what_was_changed() -> None:
    kept = KeptDescriptions()
    assert kept.adopt(GRANT, 0.0) is GRANT
    kept.changed("alice", GRANT.description, Description(title="first"))
    kept.changed("alice", Description(title="first"), CHANGED)
    kept.ended("alice", 10.0)
    again = kept.adopt(GRANT, 10.0 + KEPT_S - 0.1)
    assert again.description == CHANGED
    assert again.tags == ("event:x",)
    assert kept.adopt(GRANT, 1e6).description == CHANGED  # It is live: no time runs.
    kept.ended("alice", 1e6)
    assert kept.adopt(GRANT, 1e6 + KEPT_S) is GRANT
    assert len(kept) == 0


def test_a_key_that_says_something_else_has_a_show_of_its_own() -> None:
    kept = KeptDescriptions()
    kept.changed("alice", GRANT.description, CHANGED)
    other = Grant(channel="alice", title="the late show")
    assert kept.adopt(other, 0.0) is other
    assert kept.adopt(GRANT, 0.0) is GRANT


def test_channels_are_bounded() -> None:
    kept = KeptDescriptions(channels_max=2)
    for channel in ("a", "b", "a", "c"):
        kept.changed(channel, Description(), CHANGED)
    kept.ended("nobody", 0.0)
    assert len(kept) == 2
    assert kept.adopt(Grant(channel="b"), 0.0).description == Description()
    assert kept.adopt(Grant(channel="a"), 0.0).description == CHANGED
