"""One child that does not do what it should; each of its limits."""

import struct

import pytest
import trio

from edged.origin.transcoder import TranscoderLimits
from tests.origin.live import Live, faulty, running
from tests.origin.sources import X264, Source, make_source

pytestmark = pytest.mark.e2e
SOCKET = """
import os, socket, sys, time
connection = socket.socket(fileno=os.dup(0))
"""
READY = (
    SOCKET
    + """
from edged.wire.transcode import Ready, TranscodeLink
link = TranscodeLink()
link.send_message(Ready(os.getpid()))
connection.sendall(link.data_to_send())
"""
)


def clip() -> Source:
    return make_source(*X264, "-bf", "0", "-g", "15", seconds=1)


async def reason_of(script: str, limits: TranscoderLimits | None = None) -> str:
    """Why the first child failed."""
    live = Live(clip(), command=("-c", script), limits=limits)
    async with running(live):
        await live.feed(speed=float("inf"))
        await live.wait_until(lambda: live.transcoder.statistics().restarts)
    return live.transcoder.last_reason


async def test_one_that_ends_tells_by_its_code_and_its_last_line() -> None:
    script = SOCKET + "print('first\\nsecond', file=sys.stderr); sys.exit(3)"
    assert await reason_of(script) == "ended with code 3: second"


async def test_one_that_speaks_nonsense() -> None:
    script = SOCKET + "connection.sendall(bytes(50)); time.sleep(60)"
    assert "frame of unknown kind 0x00" in await reason_of(script)


async def test_one_that_says_what_only_a_parent_says() -> None:
    script = (
        READY
        + """
from edged.wire.transcode import InputEnded
link.send_message(InputEnded())
connection.sendall(link.data_to_send())
time.sleep(60)
"""
    )
    assert await reason_of(script) == "InputEnded is not for a parent"


async def test_one_that_does_not_start() -> None:
    reason = await reason_of(SOCKET + "time.sleep(60)", TranscoderLimits(start_s=0.5))
    assert reason.startswith("did not start for 0.")


async def test_one_that_takes_nothing() -> None:
    reason = await reason_of(READY + "time.sleep(60)", TranscoderLimits(hang_s=0.5))
    assert reason.startswith("made no progress for 0.")


async def test_one_that_does_not_end_is_not_waited_for() -> None:
    command = faulty("None")
    script = command[1].replace(
        "sys.exit(", "LadderEngine.finish = lambda self: time.sleep(60)\nsys.exit("
    )
    live = Live(clip(), command=("-c", script), limits=TranscoderLimits(end_s=0.5))
    with trio.fail_after(20):
        async with running(live):
            await live.feed(speed=float("inf"))
    assert live.transcoder.state == "ended"
    assert live.transcoder.statistics().restarts == 0, "there is nothing to begin anew for"


@pytest.mark.parametrize("flight_units", [1, 8])
async def test_no_more_is_given_to_it_than_it_may_have(flight_units: int) -> None:
    live = Live(clip(), limits=TranscoderLimits(flight_units=flight_units))
    most = 0

    async def look() -> None:
        nonlocal most
        while True:
            session = live.transcoder._session
            if session is not None:
                most = max(most, len(session._flight))
            await trio.sleep(0.001)

    async with running(live), trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await live.begun()
        await live.feed(speed=float("inf"))
        await live.wait_until(lambda: live.transcoder.statistics().units_in == 30)
        nursery.cancel_scope.cancel()
    assert 1 <= most <= flight_units
    assert len(live.made.rung("64p")) == 30


@pytest.mark.parametrize("units", [None, 2])
async def test_no_more_bytes_are_given_to_it_than_it_may_have(units: int | None) -> None:
    """By default 4 MiB; and never less than one unit."""
    size = 512 * 1024
    filler = struct.pack("!IB", size - 4, 12) + bytes([255]) * (size - 6) + bytes([128])
    limits = TranscoderLimits() if units is None else TranscoderLimits(flight_bytes=units * size)
    live = Live(clip(), limits=limits, command=faulty("time.sleep(0.02)"))
    most = 0

    async def look() -> None:
        nonlocal most
        while True:
            session = live.transcoder._session
            if session is not None:
                most = max(most, session._flight_bytes)
            await trio.sleep(0.001)

    async with running(live), trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await live.begun()
        await live.feed(
            speed=float("inf"), change=lambda unit: unit.replaced(payload=unit.payload + filler)
        )
        await live.wait_until(lambda: live.transcoder.statistics().units_in == 30)
        nursery.cancel_scope.cancel()
    allowed = 4 * 2**20 if units is None else units * size
    assert size < most < allowed + 1.2 * size
    assert len(live.made.rung("64p")) == 30


async def test_one_far_behind_goes_on_at_the_newest_gop() -> None:
    command = faulty("time.sleep(0.05)")
    limits = TranscoderLimits(flight_units=2, skip_queue_s=0.5)
    live = Live(clip(), command=command, limits=limits)
    async with running(live):
        await live.feed(turns=4, speed=2)
    statistics = live.transcoder.statistics()
    assert statistics.units_skipped > 0
    assert statistics.restarts == 0
    for gop in live.gops("64p"):
        assert gop[0] % 45_000 == live.keys[0] % 45_000, "each begins where the source's does"


async def test_an_idle_source_is_no_hang() -> None:
    live = Live(clip(), limits=TranscoderLimits(hang_s=0.3))
    async with running(live):
        await live.begun()
        await live.feed(speed=float("inf"))
        await live.wait_until(lambda: live.transcoder.statistics().units_out == 90)
        await trio.sleep(1.0)
    assert live.transcoder.statistics().restarts == 0
