"""The shell around one session: every way it can end, and that it always says why."""

import itertools
import math
import random
import ssl
from collections.abc import Sequence
from functools import partial

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from edged.errors import ConfigError, PeerLostError, RemoteProtocolError
from edged.irs.session import (
    GOODBYE_S_MAX,
    STALL_S_MAX,
    STEADY_S,
    Driver,
    connect,
    keep_session,
)
from edged.wire.irs_link import PeerLost


class EchoLink:
    """A core that echoes, and does what its few commands say."""

    def __init__(self) -> None:
        self.out = b""
        self.deadline = math.inf

    def receive_data(self, data: bytes, now: float) -> Sequence[object]:
        if data == b"garbage":
            raise RemoteProtocolError("garbage at byte 0")
        if data.startswith(b"lose me in "):
            self.deadline = now + float(data.split()[-1])
        elif data != b"quiet":
            self.out += data
        return [data]

    def data_to_send(self) -> bytes:
        data, self.out = self.out, b""
        return data

    def next_timeout(self) -> float:
        return self.deadline

    def handle_timeout(self, now: float) -> Sequence[object]:
        self.deadline = math.inf
        return [PeerLost("silent for 3.0 s")]

    def refuse(self, reason: str, now: float) -> None:
        self.out += f"goodbye: {reason}".encode()


class Run:
    """A driver running on one end of a memory stream."""

    def __init__(self, *, says_goodbye: bool = False) -> None:
        self.ours, self.theirs = memory_stream_pair()
        self.link = EchoLink()
        self.events: list[object] = []
        self.driver = Driver(
            self.ours,
            self.link,
            self.handle,
            goodbye=self.link.refuse if says_goodbye else None,
        )
        self.reason = ""

    def handle(self, event: object) -> None:
        if event == b"refuse me":
            raise RemoteProtocolError("as asked")
        if event == b"meet a bug":
            raise KeyError("a bug")
        self.events.append(event)

    async def __call__(self) -> None:
        self.reason = await self.driver.run()


async def test_events_go_up_and_output_goes_out(autojump_clock: MockClock) -> None:
    run = Run()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await run.theirs.send_all(b"hello")
        assert await run.theirs.receive_some() == b"hello"
        run.link.out = b"unasked"
        run.driver.wake()
        assert await run.theirs.receive_some() == b"unasked"
        await run.theirs.aclose()
    assert run.reason == "closed by the peer"
    assert run.events == [b"hello"]


@pytest.mark.parametrize(
    ("data", "reason"), [(b"garbage", "garbage at byte 0"), (b"refuse me", "as asked")]
)
async def test_an_error_says_goodbye_and_ends_this_session(
    data: bytes, reason: str, autojump_clock: MockClock
) -> None:
    run = Run(says_goodbye=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await run.theirs.send_all(data)
        received = b""
        while chunk := await run.theirs.receive_some():
            received += chunk
            await run.theirs.send_all(b"not heard any more")
        assert received.endswith(f"goodbye: {reason}".encode())
    assert run.reason == reason
    assert trio.current_time() == pytest.approx(GOODBYE_S_MAX)


async def test_a_bug_that_a_message_meets_ends_this_session_only(
    autojump_clock: MockClock,
) -> None:
    run, other = Run(says_goodbye=True), Run()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            nursery.start_soon(other)
            await run.theirs.send_all(b"meet a bug")
            received = b""
            while chunk := await run.theirs.receive_some():
                received += chunk
            await other.theirs.send_all(b"hello")
            assert await other.theirs.receive_some() == b"hello"
            await other.theirs.aclose()
    assert received.endswith(b"goodbye: internal error: KeyError")
    assert run.reason == "internal error: KeyError"
    assert other.reason == "closed by the peer"
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["event"], line["exc_info"]) == ("irs session failed", True)


async def test_the_end_comes_at_once_when_the_peer_closes_after_goodbye(
    autojump_clock: MockClock,
) -> None:
    run = Run(says_goodbye=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        run.driver.end("drain")
        run.driver.end("again")
        assert await run.theirs.receive_some() == b"goodbye: drain"
        await run.theirs.aclose()
    assert (run.reason, trio.current_time()) == ("drain", 0.0)


async def test_time_alone_can_end_it(autojump_clock: MockClock) -> None:
    run = Run()
    run.link.deadline = 7.0
    await run()
    assert (run.reason, trio.current_time()) == ("silent for 3.0 s", 7.0)


async def test_only_what_is_to_be_sent_or_comes_sooner_wakes_who_sends(
    autojump_clock: MockClock,
) -> None:
    """Most of what IRS hears is acks and heartbeats, a thousand a second."""
    run = Run()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await run.theirs.send_all(b"lose me in 9")
        await wait_all_tasks_blocked()
        waiting = run.driver._wake
        for said in (b"quiet", b"lose me in 10"):
            await run.theirs.send_all(said)
            await wait_all_tasks_blocked()
        assert run.driver._wake is waiting
        await run.theirs.send_all(b"echo")
        assert await run.theirs.receive_some() == b"echo"
        await run.theirs.send_all(b"lose me in 2")
    assert (run.reason, trio.current_time()) == ("silent for 3.0 s", 2.0)


async def test_what_can_be_read_is_read_before_time_counts(autojump_clock: MockClock) -> None:
    run = Run()
    run.link.deadline = 1.0

    async def speak_at_the_last_moment() -> None:
        await trio.sleep(1.0)
        run.link.deadline = 2.0  # As a core does when it hears something.
        await run.theirs.send_all(b"alive")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(speak_at_the_last_moment)
    assert trio.current_time() == 2.0
    assert run.events == [b"alive"]


async def test_a_peer_that_takes_nothing_is_dropped(autojump_clock: MockClock) -> None:
    run = Run()

    async def never() -> None:
        await trio.sleep_forever()

    run.ours.send_stream.send_all_hook = never
    run.link.out = b"data"
    await run()
    assert run.reason == "the peer took no data for 1 s"
    assert trio.current_time() == pytest.approx(STALL_S_MAX)


async def test_a_connection_that_breaks_ends_it(autojump_clock: MockClock) -> None:
    for hook in ("send", "receive"):
        run = Run()

        async def broken() -> None:
            raise trio.BrokenResourceError("reset")

        if hook == "send":
            run.ours.send_stream.send_all_hook = broken
            run.link.out = b"data"
        else:
            run.ours.receive_stream.receive_some_hook = broken
        await run()
        assert run.reason == "connection lost: reset"


async def test_cancelling_closes_the_stream(autojump_clock: MockClock) -> None:
    run = Run()
    with trio.move_on_after(1):
        await run()
    assert await run.theirs.receive_some() == b""


async def test_connecting_says_what_failed_and_where() -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        await connect("nowhere", None, role="irs", timeout_s=1.0)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with pytest.raises(PeerLostError, match=rf"cannot connect to 127\.0\.0\.1:{port}: "):
        await connect(f"127.0.0.1:{port}", None, role="irs", timeout_s=1.0)


@pytest.mark.e2e
async def test_a_handshake_that_fails_or_hangs_says_so() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.0 400 no TLS here\r\n\r\n")

    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    async with trio.open_nursery() as nursery:
        for handler, reason in ((answer, "WRONG_VERSION_NUMBER"), (hang, "no answer in 0.1 s")):
            serve = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
            (listener,) = await nursery.start(serve)
            address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
            with pytest.raises(PeerLostError, match=f"cannot connect to {address}: .*{reason}"):
                await connect(address, context, role="irs", timeout_s=0.1)
        nursery.cancel_scope.cancel()


async def test_attempts_back_off_with_jitter_and_are_said_once(autojump_clock: MockClock) -> None:
    attempts: list[float] = []

    async def fail(address: str) -> str:
        attempts.append(trio.current_time())
        if len(attempts) % 2:
            raise PeerLostError(f"cannot connect to {address}: refused")
        return f"cannot connect to {address}: refused"

    rng = random.Random(1)  # noqa: S311 - a test's jitter
    with capture_logs() as logs, trio.move_on_after(10):
        await keep_session("h:1", fail, rng=rng, reconnect_s_max=lambda: 0.2)
    gaps = [after - before for before, after in itertools.pairwise(attempts)]
    assert 0.025 <= gaps[0] <= 0.075
    assert 0.05 <= gaps[1] <= 0.15
    assert all(0.1 <= gap <= 0.3 for gap in gaps[2:])
    assert [line["reason"] for line in logs] == ["cannot connect to h:1: refused"]


async def test_a_steady_session_makes_the_next_reconnect_quick(autojump_clock: MockClock) -> None:
    begun: list[float] = []

    async def last(address: str) -> str:
        begun.append(trio.current_time())
        await trio.sleep(STEADY_S + 1)
        return "closed by the peer"

    rng = random.Random(1)  # noqa: S311 - a test's jitter
    with capture_logs() as logs, trio.move_on_after(59):
        await keep_session("h:1", last, rng=rng, reconnect_s_max=lambda: 30.0)
    assert len(begun) == 10
    assert len(logs) == 9


async def test_the_longest_wait_may_change_meanwhile(autojump_clock: MockClock) -> None:
    attempts: list[float] = []
    longest = 30.0

    async def fail(address: str) -> str:
        attempts.append(trio.current_time())
        return f"cannot connect to {address}: refused"

    rng = random.Random(1)  # noqa: S311 - a test's jitter
    with trio.move_on_after(200):
        async with trio.open_nursery() as nursery:

            async def keep() -> None:
                await keep_session("h:1", fail, rng=rng, reconnect_s_max=lambda: longest)

            nursery.start_soon(keep)
            await trio.sleep(150)
            longest = 0.2
    assert len([at for at in attempts if at < 150]) < 20
    assert len([at for at in attempts if at > 150]) > 5
