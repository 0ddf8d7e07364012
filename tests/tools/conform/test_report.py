import re
from pathlib import Path

import pytest

from edged.tools.conform import report as report_module
from edged.tools.conform.item import Item, Unavoidable
from edged.tools.conform.observe import Observation
from edged.tools.conform.report import ITEMS, judge
from tests.e2e.conformance import UNSEEN

ROOT = Path(__file__).parents[3]


def test_all_36_items_are_judged_once() -> None:
    assert [item.number for item in ITEMS] == list(range(1, 37))


def test_each_item_is_shown_by_a_run_in_ci() -> None:
    """Each run sees to what the table says of it (`check_shown`)."""
    assert not frozenset.intersection(*UNSEEN.values())
    runs = "".join(path.read_text() for path in (ROOT / "tests/e2e").glob("test_*.py"))
    assert set(re.findall(r'check_shown\("([^"]+)"', runs)) == UNSEEN.keys()


def test_nothing_is_wrong_with_what_is_right(good: Observation) -> None:
    report = judge(good)
    wrong = [v for v in report.verdicts if v.status in ("fail", "warn")]
    assert not wrong
    assert report.conforms
    assert report.renditions == ["v0.m3u8", "a0.m3u8"]
    unseen = {v.number for v in report.verdicts if v.status == "not seen"}
    assert unseen <= {5, 8, 20, 25, 26}, "it is live, young, without ranges and delta updates"


def test_ours_lacks_http_2_where_it_is_not_under_tls(ours: Observation) -> None:
    report = judge(ours)
    assert {v.number for v in report.verdicts if v.status == "fail"} == {31}
    assert not report.conforms


def test_what_was_not_answered_is_held_against_it(good: Observation) -> None:
    good.broken += [f"broken {number}" for number in range(9)]
    report = judge(good)
    assert not report.conforms
    assert report.broken == [f"broken {number}" for number in range(5)]


def test_many_problems_are_counted(good: Observation) -> None:
    good.main.seen = [one for one in good.main.seen for _ in range(9)]
    good.main.seen += good.main.seen[:1] + good.main.seen[-1:]
    good.main.seen *= 8
    (found,) = [v for v in judge(good).verdicts if v.number == 9]
    assert found.status == "fail"
    assert len(found.details) == 6
    assert found.details[-1].endswith(" more")


def test_a_value_that_cannot_be_read_is_a_problem_of_its_item(good: Observation) -> None:
    good.main.last.control["HOLD-BACK"] = "soon"
    found = {verdict.number: verdict for verdict in judge(good).verdicts}
    assert found[12].status == "fail"
    assert found[12].details == ["HOLD-BACK 'soon' is no decimal number"]
    assert found[11].status == "pass"


def test_what_the_source_leaves_no_choice_about_is_told_and_not_held_against_it(
    good: Observation,
) -> None:
    item = Item(14, "must", "parts", lambda _: Unavoidable(["a variable frame rate"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_module, "ITEMS", (item,))
        report = judge(good)
    assert [(v.status, v.details) for v in report.verdicts] == [("warn", ["a variable frame rate"])]
    assert report.conforms
