"""The proxy itself: what a pipe does to bytes, and that they come through sockets whole."""

import random
from functools import partial

import pytest
import trio

from tests.e2e.proxy import (
    PACKET_BYTES,
    PIPE_BYTES_MAX,
    TIMEOUT_S_MIN,
    Bottleneck,
    Pipe,
    Weather,
    open_proxy,
)


def make_pipe(weather: Weather, seed: int = 1) -> Pipe:
    return Pipe(weather, weather.down, random.Random(seed))  # noqa: S311 - replayable


def test_half_the_round_trip_each_way() -> None:
    pipe = make_pipe(Weather(rtt_s=0.05))
    pipe.receive_data(b"abc", now=1.0)
    assert pipe.next_timeout() == pytest.approx(1.025)
    assert pipe.data_to_send(1.02) == b""
    assert pipe.data_to_send(1.03) == b"abc"
    assert pipe.next_timeout() == float("inf")


def test_a_rate_is_kept_and_shared_and_may_change() -> None:
    weather = Weather(down=Bottleneck(10_000.0))
    first, second = make_pipe(weather), make_pipe(weather)
    first.receive_data(bytes(10_000), now=0.0)
    second.receive_data(bytes(10_000), now=0.0)
    assert len(first.data_to_send(0.5)) == pytest.approx(5_000, abs=PACKET_BYTES)
    assert first.data_to_send(1.0) != b""
    assert second.data_to_send(0.9) == b"", "it is behind the first"
    second.data_to_send(2.0)
    assert second.queued_bytes == 0
    weather.down.bytes_per_s = None
    first.receive_data(b"x", now=2.0)
    assert first.data_to_send(2.0) == b"x"


def test_a_lost_packet_holds_up_its_own_connection_in_order() -> None:
    weather = Weather(rtt_s=0.05, loss=0.2)
    pipe, other = make_pipe(weather, seed=3), make_pipe(Weather(rtt_s=0.05))
    sent = bytes(range(256)) * (40 * PACKET_BYTES // 256)
    pipe.receive_data(sent, now=0.0)
    other.receive_data(sent, now=0.0)
    assert other.data_to_send(0.025) == sent
    at_once = pipe.data_to_send(0.07)
    assert len(at_once) < len(sent)
    assert weather.losses > 0
    assert at_once + pipe.data_to_send(10.0) == sent


class Losing(random.Random):
    """Loses the packets of these numbers, of all that are sent."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(1)
        self.numbers, self.sent = numbers, 0

    def random(self) -> float:
        self.sent += 1
        return 0.0 if self.sent in self.numbers else 1.0


@pytest.mark.parametrize(
    ("lost", "packets", "trips", "more_s"),
    [
        ((1,), 4, 1.0, 0.0),  # Three behind it: no doubt.
        ((2,), 4, 1.25, 0.0),  # Two: they may be out of order.
        ((4,), 4, 2.0, 0.0),  # The last: a probe brings it out.
        ((1,), 1, 2.0, TIMEOUT_S_MIN),  # Alone on its way, its ack may be delayed.
        ((1, 2), 4, 2.0, TIMEOUT_S_MIN),  # And again: the timeout, a round trip and so much.
    ],
)
def test_what_is_lost_is_sent_again_as_tcp_does(
    lost: tuple[int, ...], packets: int, trips: float, more_s: float
) -> None:
    rtt_s = 0.1
    weather = Weather(rtt_s=rtt_s, loss=0.5)
    pipe = Pipe(weather, weather.down, Losing(*lost))
    pipe.receive_data(bytes(packets * PACKET_BYTES), now=0.0)
    whole_at = rtt_s / 2 + trips * rtt_s + more_s
    pipe.data_to_send(whole_at - 0.001)
    assert pipe.queued_bytes > 0
    pipe.data_to_send(whole_at + 0.001)
    assert pipe.queued_bytes == 0
    assert weather.losses == len(lost)


def test_what_is_sent_behind_a_lost_packet_tells_of_it() -> None:
    weather = Weather(rtt_s=0.1, loss=0.5)
    pipe = Pipe(weather, weather.down, Losing(2))
    pipe.receive_data(bytes(2 * PACKET_BYTES), now=0.0)
    assert len(pipe.data_to_send(0.05)) == PACKET_BYTES
    pipe.receive_data(bytes(PACKET_BYTES), now=0.01)
    assert pipe.data_to_send(0.184) == b""
    assert len(pipe.data_to_send(0.186)) == 2 * PACKET_BYTES


def test_what_is_behind_does_not_bring_back_what_is_lost_again() -> None:
    weather = Weather(rtt_s=0.1, loss=0.5)
    pipe = Pipe(weather, weather.down, Losing(2, 3))  # The second packet, and then it once more.
    pipe.receive_data(bytes(2 * PACKET_BYTES), now=0.0)
    pipe.data_to_send(0.05)
    pipe.receive_data(bytes(PACKET_BYTES), now=0.01)
    assert pipe.data_to_send(0.185 + 0.1 + TIMEOUT_S_MIN - 0.001) == b""
    assert len(pipe.data_to_send(0.186 + 0.1 + TIMEOUT_S_MIN)) == 2 * PACKET_BYTES


def test_losses_come_at_their_rate_and_are_the_same_for_one_seed() -> None:
    counts = []
    for _ in range(2):
        weather = Weather(loss=0.01)
        make_pipe(weather, seed=7).receive_data(bytes(20_000 * PACKET_BYTES), now=0.0)
        counts.append(weather.losses)
    assert counts[0] == counts[1]
    assert 150 <= counts[0] <= 260


def test_a_pipe_is_full_at_its_limit() -> None:
    pipe = make_pipe(Weather(rtt_s=1.0))
    pipe.receive_data(bytes(PIPE_BYTES_MAX - 1), now=0.0)
    assert not pipe.is_full
    pipe.receive_data(b"x", now=0.0)
    assert pipe.is_full
    pipe.data_to_send(1.0)
    assert not pipe.is_full


async def upper(stream: trio.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(bytes(data).swapcase())


@pytest.mark.e2e
async def test_bytes_come_through_sockets_whole_and_late() -> None:
    sent = b"aBc" * 100_000  # More than a pipe holds.
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(partial(trio.serve_listeners, upper, [listener]))
            port = listener.socket.getsockname()[1]
            weather = Weather(rtt_s=0.05, loss=0.002)
            async with open_proxy(port, weather) as proxy:
                stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
                async with stream:
                    began_at = trio.current_time()
                    nursery.start_soon(stream.send_all, sent)
                    got = bytearray()
                    while len(got) < len(sent):
                        got += await stream.receive_some(65_536)
                    assert trio.current_time() - began_at >= 0.05
                assert bytes(got) == sent.swapcase()
                assert proxy.connections == 1
            nursery.cancel_scope.cancel()
