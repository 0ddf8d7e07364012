"""The PoP under siege: `edged run` with a channel "show" beside, whose parts are made here.

python -m tests.bench.siege.server run -c FILE
"""

import sys
from pathlib import Path

import trio

from edged.config import load_config
from edged.media.stream import StreamId
from edged.roles.all_in_one import Process
from edged.roles.pop import PopRole
from edged.runtime.log import configure_logging
from tests.playback.fakes import Origin

CHANNEL = "show"
RUN = StreamId(channel=CHANNEL, publication=1)
PART_BYTES = 20_000  # 800 kbps: what is measured is the joining, not the loopback's memory.
SEGMENTS = 12
PART_S = 0.2


async def feed(pop: PopRole) -> None:
    """Be the origin of the show, in real time."""
    origin = Origin(part_bytes=PART_BYTES)
    lookup, subscribe = pop.hls._lookup, pop.hls._subscribe
    wanted = trio.Event()

    def looked_up(channel: str) -> StreamId | None:
        return RUN if channel == CHANNEL else lookup(channel)

    def subscribed(channel: str) -> None:
        if channel == CHANNEL:
            wanted.set()
        else:
            subscribe(channel)

    pop.hls._lookup, pop.hls._subscribe = looked_up, subscribed
    await wanted.wait()
    events = origin.start()
    for _ in range(SEGMENTS):
        events += origin.segment()
    pop.pump.at_flush(lambda: pop.hls.window_updated(RUN, events))
    due = trio.current_time()
    while True:
        due += PART_S
        await trio.sleep_until(due)
        part = origin.both()
        pop.pump.at_flush(lambda part=part: pop.hls.window_updated(RUN, part))  # type: ignore[misc]


async def main(path: Path) -> None:
    """Run until the process is ended."""
    config = load_config(path)
    configure_logging(config.log)
    process = Process([config])
    (pop,) = (role for role in process.roles if isinstance(role, PopRole))
    async with trio.open_nursery() as nursery:
        await nursery.start(process.run)
        nursery.start_soon(feed, pop)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[sys.argv.index("-c") + 1]))
