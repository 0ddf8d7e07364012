"""The order in which a pump serves its classes is that of their numbers."""

from edged.runtime.connection import Connection
from edged.runtime.pump import BUDGETS, SERVED, Pump
from edged.runtime.pumped import PumpClass, PumpHandler, PumpSide
from tests.runtime.test_pump import Recorder, pair, running_pump


def test_publishers_go_first_and_every_class_has_its_place() -> None:
    assert min(PumpClass) is PumpClass.PUBLISHER
    assert {*BUDGETS, *SERVED} == set(PumpClass)
    assert max(BUDGETS) < min(SERVED)


async def test_a_pump_and_a_handler_are_what_a_connection_expects() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            side: PumpSide = pump
            taken: PumpHandler = handler
            assert isinstance(side, Pump)
            assert isinstance(taken, Recorder)
            assert isinstance(handler.connection, Connection)
