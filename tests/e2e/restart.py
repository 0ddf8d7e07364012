"""A PoP that ends and comes back while IRS is dead, under an encoder that reconnects at once."""

import contextlib
import datetime
import time
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from tests.e2e.network import Edged, open_edged, wait_until
from tests.e2e.pair import Pair
from tests.e2e.publisher import publish_clip

AWAY_S = 0.5


@contextlib.asynccontextmanager
async def restart_without_irs(
    pair: Pair, clip: Path, channel: str
) -> AsyncIterator[tuple[Edged, float]]:
    """The first PoP again, and the seconds from its process's start until it placed the channel.

    IRS must be killed and the PoP ended before. Publishing goes on until the block ends.
    """
    pop = next(iter(pair.pops))
    publishing = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_publishing, clip, pair.publish_url(channel), publishing)
        await trio.sleep(AWAY_S)
        path = str(pair.folder / f"{pop}.toml")
        began = time.time()
        async with open_edged(pair.folder, f"{pop}-again", "run", "-c", path) as again:
            placed = await again.wait_log("stream placed")
            at = datetime.datetime.fromisoformat(str(placed["timestamp"]))
            assert placed["channel"] == channel
            yield again, at.timestamp() - began
            publishing.cancel()  # And it has left before the PoP ends, which would wait for it.
            await wait_until(lambda: _has_left(again))


def _has_left(pop: Edged) -> bool:
    return len(pop.log("publisher ended")) == len(pop.log("publisher started"))


async def _keep_publishing(clip: Path, url: str, scope: trio.CancelScope) -> None:
    """As an encoder set to reconnect at once."""
    with scope:
        while True:
            with contextlib.suppress(Exception):
                await publish_clip(clip, url)
            await trio.sleep(0.01)
