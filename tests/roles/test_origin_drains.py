"""The commands of `edged drain origin`, at an IRS with real clients and elsewhere."""

from typing import TYPE_CHECKING

import pytest
import trio

from edged.errors import EdgedError
from edged.irs.moving import DrainSeen
from edged.roles.irs import IrsRole
from edged.roles.origin_drains import make_handlers
from edged.runtime.metrics import Metrics
from tests.irs.network import Network
from tests.roles.network import configure

if TYPE_CHECKING:
    from trio.testing import MockClock

    from edged.irs.service import IrsService


def only(answer: object) -> DrainSeen:
    assert isinstance(answer, list)
    (seen,) = answer
    assert isinstance(seen, DrainSeen)
    return seen


async def test_an_origin_is_drained_looked_at_and_undone(autojump_clock: "MockClock") -> None:
    async with trio.open_nursery() as nursery:
        role = IrsRole(configure({"irs": {"warmup_s": 0.0}}), Metrics())
        network = Network(nursery)
        service: IrsService = network.irs
        role.service = service
        network.add_origin("fra1")
        await trio.sleep(1)
        commands = make_handlers([object(), role], lambda: 40.0)
        seen = only(commands["drain-origin"]({"origin": "fra1"}))
        assert (seen.origin, seen.seconds_left, seen.left) == ("fra1", 40.0, 0)
        seen = only(commands["drain-origin"]({"origin": "fra1", "deadline_s": "9.5"}))
        assert seen.seconds_left == 9.5
        status = commands["drain-origin-status"]
        assert status({}) == status({"origin": "fra1"}) == [seen]
        assert status({"origin": "fra2"}) == []
        for command in ("drain-origin", "drain-origin-undo"):
            with pytest.raises(EdgedError, match="a drain needs an origin's name"):
                commands[command]({})
        with pytest.raises(EdgedError, match="deadline_s '0' is no number of seconds"):
            commands["drain-origin"]({"origin": "fra1", "deadline_s": "0"})
        assert commands["drain-origin-undo"]({"origin": "fra1"}) == [seen]
        assert status({}) == []
        nursery.cancel_scope.cancel()


def test_where_no_irs_runs_it_says_where_to_ask() -> None:
    commands = make_handlers([object()], lambda: 40.0)
    for command in commands.values():
        with pytest.raises(EdgedError, match="this edged is no IRS"):
            command({"origin": "fra1"})
