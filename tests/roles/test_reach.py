"""The command of `edged reach`, where there is nothing to tell. The rest is in test_reaching."""

import pytest

from edged.errors import EdgedError
from edged.media.routing import TEXT_CHARS_MAX
from edged.roles.irs import IrsRole
from edged.roles.reach import ReachShown, make_handlers
from edged.runtime.metrics import Metrics
from tests.roles.network import configure


def test_an_origin_says_where_to_ask() -> None:
    with pytest.raises(EdgedError, match="neither an IRS, which plans reach, nor a PoP"):
        make_handlers([object()])["reach"]({})


async def test_an_irs_without_the_table_says_so() -> None:
    reach = make_handlers([IrsRole(configure({"irs": {}}), Metrics())])["reach"]
    answer = reach({"channel": "x"})
    assert isinstance(answer, list)
    (shown,) = answer
    assert isinstance(shown, ReachShown)
    assert [plan.enabled for plan in shown.plans] == [False]
    assert shown.pops == []
    with pytest.raises(EdgedError, match="of 257 characters exceeds 256"):
        reach({"channel": (TEXT_CHARS_MAX + 1) * "x"})
