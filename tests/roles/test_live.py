"""The command of `edged live`, at an IRS with a real client and elsewhere."""

import pytest
import trio
from trio.testing import MockClock

from edged.errors import EdgedError
from edged.irs.live_board import LiveAnswer, LiveQuery
from edged.roles.irs import IrsRole
from edged.roles.live import LIMIT_MAX, TEXT_CHARS_MAX, make_handlers, parse_query
from edged.runtime.metrics import Metrics
from tests.irs.network import Network, until
from tests.irs.test_live_board import add_pop
from tests.policy.test_live_teller import rows
from tests.roles.network import configure


async def test_an_irs_answers_and_others_say_where_to_ask(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        role = IrsRole(configure({"irs": {"warmup_s": 0.0}}), Metrics())
        network = Network(nursery)
        role.service = network.irs
        add_pop(network, "p", rows(5))
        await until(lambda: len(network.irs.live.registry) == 5)
        live = make_handlers([object(), role])["live"]
        answers = live({"limit": "2", "pop": "p/0"})
        assert isinstance(answers, list)
        (answer,) = answers
        assert isinstance(answer, LiveAnswer)
        assert [seen.channel for seen in answer.streams] == ["c0", "c1"]
        assert (answer.matching, answer.channels) == (5, 5)
        nursery.cancel_scope.cancel()
    with pytest.raises(EdgedError, match="no IRS: ask the one that runs it"):
        make_handlers([object()])["live"]({})


def test_what_is_asked_is_read_and_nonsense_refused() -> None:
    assert parse_query({}) == LiveQuery()
    asked = {"channel": "a", "text": "b", "pop": "c", "origin": "d", "limit": str(LIMIT_MAX)}
    assert parse_query(asked) == LiveQuery(
        channel="a", text="b", pop="c", origin="d", limit=LIMIT_MAX
    )
    for limit in ("0", "-1", "x", "²", str(LIMIT_MAX + 1), "9" * 5000):
        with pytest.raises(EdgedError, match=f"no number from 1 to {LIMIT_MAX}"):
            parse_query({"limit": limit})
    assert parse_query({"text": "x" * TEXT_CHARS_MAX}).text
    with pytest.raises(EdgedError, match="text of 257 characters exceeds 256"):
        parse_query({"text": "x" * (TEXT_CHARS_MAX + 1)})
