"""Who may not go over a full link, by a PoP's own knowledge, and for how long."""

import math

from edged.media.stream import PriorityClass
from edged.policy.full_paths import TOLD_S, FullPath, FullPaths

PARTNER, AFFILIATE, BASIC = PriorityClass
WHY = "link sea is full"


def make(priority: PriorityClass = AFFILIATE) -> FullPaths:
    full = FullPaths()
    full.told([FullPath("far", priority, "sea")], until=30.0)
    return full


def test_the_class_that_was_shed_and_those_below_do_not_cross_it() -> None:
    full = make()
    assert [full.why("far", each, 0.0) for each in PriorityClass] == ["", WHY, WHY]
    assert full.why("near", BASIC, 0.0) == ""
    assert full.why("far", BASIC, 30.0) == "", "irs is gone"
    assert FullPaths().why("far", BASIC, -math.inf) == ""


def test_a_lease_heeds_links_itself_but_not_what_was_just_shed_here() -> None:
    full = make()
    assert full.why("far", BASIC, 1.0, leased=True) == ""
    full.shed("far", 1.0)
    assert full.why("far", BASIC, 1.0, leased=True) == WHY
    assert full.why("far", PARTNER, 1.0, leased=True) == ""
    full.table_changed(1.0 + TOLD_S - 0.1)
    assert full.why("far", BASIC, 5.0, leased=True) == WHY, "irs did not know when it made that"
    full.table_changed(1.0 + TOLD_S)
    assert full.why("far", BASIC, 5.0, leased=True) == ""
    assert full.why("far", BASIC, 5.0) == WHY


def test_what_is_told_is_all_that_is_full() -> None:
    full = make()
    full.shed("far", 0.0)
    full.told([FullPath("old", BASIC, "dish")], until=30.0)
    assert full.why("far", BASIC, 0.0) == ""
    assert full.why("old", AFFILIATE, 0.0) == ""
    full.told([FullPath("far", BASIC, "sea"), FullPath("old", BASIC, "sea")], until=30.0)
    assert full.why("far", BASIC, 0.0, leased=True) == "", "that it was shed is long over"
    rejected = dict.fromkeys(("far", "old", "near"), "whatever")
    assert full.keeps_from(rejected, BASIC, 0.0)
    assert not full.keeps_from(rejected, PARTNER, 0.0)
    assert not full.keeps_from(["near"], BASIC, 0.0)
