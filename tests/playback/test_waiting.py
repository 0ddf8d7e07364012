"""What a service sees of requests, over whichever protocol."""

import pytest

from edged.playback.waiting import Exchange
from edged.wire.prepared import PreparedResponse, prepare
from tests.playback.fakes import world


class Bare(Exchange):
    """The least that there must be of one."""

    __slots__ = ()

    def wait(self, group: dict[Exchange, None], until: float, expired: PreparedResponse) -> None:
        group[self] = None

    def answer(self, response: PreparedResponse, now: float) -> None:
        """Nothing."""

    def stamped(self, response: PreparedResponse, now: float) -> tuple[bytes, ...]:
        return ()

    def retry(self, now: float) -> None:
        """Nothing."""


@pytest.mark.pure
def test_what_is_not_simple_is_not_answered_ahead() -> None:
    with world() as edge:
        exchange = Bare(edge.client().connection)
        text = prepare(200, [b"x"], content_type="text/plain", cache_control="no-store")
        assert not exchange.answer_ahead(text)
        exchange.settle(0.0)
        assert (exchange.polled, exchange.retrying) == (None, False)


@pytest.mark.pure
def test_it_is_no_exchange_that_cannot_be_answered() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Exchange(None)  # type: ignore[abstract, arg-type]
