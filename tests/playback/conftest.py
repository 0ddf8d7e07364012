"""A server on virtual time, and a service that answers at once, later, or hugely."""

from collections.abc import Iterator

import pytest

from tests.playback.fakes import World, world
from tests.playback.test_http import Service


@pytest.fixture
def edge() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def service(edge: World) -> Service:
    made = Service()
    edge.server.mount("/live/", made)
    return made
