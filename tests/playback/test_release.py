"""Those who wait for the same answer: each gets it once, a few at a time."""

import math
from unittest import mock

import pytest

from edged.playback.release import SENDS_PER_LOOK, Release, do_at_once
from tests.playback.fakes import world
from tests.playback.test_http import Service


def test_a_release_goes_on_over_several_goes() -> None:
    """Who leaves or whose time is over meanwhile is not answered by it; all others are, once."""
    service = Service()
    with world() as edge:
        edge.server.mount("/live/", service)
        service.until = 1005.0
        count = 4 * SENDS_PER_LOOK
        clients = [edge.client() for _ in range(count)]
        for client in clients:
            client.ask("/live/later")
        release = Release(service.group, service.text("part"), edge.pump.now)
        assert release(0.0), "a go answers a few whatever the time"
        clients[-1].close()
        edge.pump.turn()
        assert release(0.0)
        edge.pump.advance(10)
        assert not release(math.inf)
        assert edge.server.connections == count - 1
        edge.pump.flush()
        statuses = [[answer.status for answer in client.answers()] for client in clients[:-1]]
        answered = 2 * SENDS_PER_LOOK
        assert statuses == [[200]] * answered + [[503]] * (count - 1 - answered)
        clients[0].ask("/live/hello", "HEAD")
        assert [answer.status for answer in clients[0].answers(head=True)] == [200]


@pytest.mark.pure
def test_who_was_to_be_sent_to_when_that_failed_is_ended_and_the_others_are_answered() -> None:
    service = Service()
    with world() as edge:
        edge.server.mount("/live/", service)
        clients = [edge.client() for _ in range(SENDS_PER_LOOK + 3)]
        for client in clients:
            client.ask("/live/later")
        release = Release(service.group, service.text("part"), edge.pump.now)
        with mock.patch("edged.playback.release.send_to_all", side_effect=RuntimeError("planted")):
            assert release(0.0)
        do_at_once(release)
        edge.pump.flush()
        assert [bool(client.lost) for client in clients] == [True] * SENDS_PER_LOOK + [False] * 3
        assert [len(client.answers()) for client in clients[SENDS_PER_LOOK:]] == [1, 1, 1]


def test_without_a_pump_all_of_it_is_done_at_once() -> None:
    service = Service()
    with world() as edge:
        edge.server.mount("/live/", service)
        clients = [edge.client() for _ in range(3 * SENDS_PER_LOOK + 1)]
        for client in clients:
            client.ask("/live/later")
        do_at_once(Release(service.group, service.text("part"), edge.pump.now))
        edge.pump.flush()
        assert [[a.body for a in client.answers()] for client in clients] == [[b"part"]] * len(
            clients
        )
