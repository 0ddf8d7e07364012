"""Who watches what at an edge, from those who wait for the next part."""

import socket

import pytest

import edged.playback.audience
from edged.media.reach import RTT_BOUNDS_MS, AudienceRow
from edged.playback.audience import read_audience, read_mbps, rtt_ms_of
from edged.playback.hls import HlsService
from tests.playback.fakes import Client, Origin
from tests.playback.test_hls import BASE, Edge, edge

__all__ = ["edge"]


def watching(edge: Edge, origin: Origin, players: int) -> list[Client]:
    """Low-latency players of the best rung, who all wait for the part after the next."""
    edge.watch(origin, segments=2)
    clients = [edge.world.client() for _ in range(players)]
    for _ in range(2):
        for client in clients:
            client.ask(BASE + f"v0.m3u8?_HLS_msn={origin.msn}&_HLS_part={origin.index}")
        edge.push(origin.both())
    for client in clients:
        client.ask(BASE + f"v0.m3u8?_HLS_msn={origin.msn}&_HLS_part={origin.index}")
    return clients


def rows(service: HlsService, edge: Edge, *ms: float | None) -> list[AudienceRow]:
    given = iter(ms)
    return list(
        read_audience(service.channels.values(), edge.world.pump.time, lambda _: next(given, None))
    )


def test_players_are_counted_by_rung_and_round_trip(edge: Edge) -> None:
    clients = watching(edge, Origin(), 5)
    assert len(clients) == 5
    (row,) = rows(edge.service, edge, 1.0, RTT_BOUNDS_MS[0], 39.0, 41.0, None)
    assert (row.channel, row.viewers, row.rungs) == ("demo", 5, {"v0": 5})
    assert row.near == (2, 0, 0, 0, 1, 1)
    assert not row.held


def test_where_no_round_trip_is_known_none_is_told(edge: Edge) -> None:
    watching(edge, Origin(), 2)
    (row,) = rows(edge.service, edge)
    assert (row.viewers, row.near) == (2, ())


def test_no_more_sockets_are_asked_than_is_cheap(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edged.playback.audience, "SAMPLES_PER_CHANNEL_MAX", 3)
    watching(edge, Origin(), 5)
    (row,) = rows(edge.service, edge, *(1.0 for _ in range(9)))
    assert (row.viewers, sum(row.near)) == (5, 3)
    monkeypatch.setattr(edged.playback.audience, "SAMPLES_MAX", 2)
    (row,) = rows(edge.service, edge, *(1.0 for _ in range(9)))
    assert sum(row.near) == 2


def test_what_nobody_watches_is_told_only_if_it_is_held(edge: Edge) -> None:
    edge.service.hold("demo")
    assert rows(edge.service, edge) == [AudienceRow("demo", 0, held=True)]
    edge.service.let_go("demo")
    assert rows(edge.service, edge) == []


def test_what_comes_in_is_measured(edge: Edge) -> None:
    assert read_mbps(edge.service.channels.values()) == 0
    origin = Origin()
    edge.watch(origin, segments=3)
    windows = edge.service.channels["demo"].newest
    assert windows is not None
    expected = sum(
        8
        * sum(segment.payload_bytes for segment in list(window.segments.values())[:-1])
        / sum(segment.entry.duration_us for segment in list(window.segments.values())[:-1])
        for window in windows.window.renditions.values()
    )
    assert read_mbps(edge.service.channels.values()) == pytest.approx(expected, rel=0.5)
    assert read_mbps(edge.service.channels.values()) > 0
    windows.end_here("it is over")
    assert read_mbps(edge.service.channels.values()) == 0


def test_the_kernel_tells_the_round_trip_of_tcp_alone() -> None:
    class Socket:
        sock: socket.socket

    made = Socket()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as made.sock,
    ):
        ms = rtt_ms_of(made)  # type: ignore[arg-type] # all that it looks at
        assert ms is not None
        assert 0 < ms < 1000
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made.sock = ours
        assert rtt_ms_of(made) is None  # type: ignore[arg-type]
