"""What the pages' scripts compute, in Node: no browser, no network, a clock of the test's."""

import json
from functools import partial
from pathlib import Path

import pytest

from edged.playback.web import build
from tests.node import run_module

WEB = Path(build.__file__).parent
# The browser's clock, the server's and the network between them, all moved by the script alone.
CLOCK = """
let browserMs = 0, serverMs = 1_700_000_000_000, rttMs = 4, wake = () => {};
const timeOrigin = 1_700_000_000_000;
Object.defineProperty(globalThis, "performance", { value: { timeOrigin, now: () => browserMs } });
AbortSignal.timeout = () => undefined;
globalThis.setTimeout = (then, ms) => { wake = () => { pass(ms); then(); }; };
const pass = (ms) => { browserMs += ms; serverMs += ms; };
globalThis.fetch = async () => {
  pass(rttMs / 2);
  const text = String(serverMs);
  pass(rttMs / 2);
  return { ok: true, text: async () => text };
};
const settle = async () => { for (let i = 0; i < 20; i++) await Promise.resolve(); };
const samples = async (count) => { for (let i = 0; i < count; i++) { wake(); await settle(); } };
const { ServerClock } = await import(`${web}/clock.js`);
const clock = new ServerClock();
clock.run();
await settle();
const error = () => Math.round(clock.nowMs() - serverMs);
"""


run = partial(run_module, WEB)


def test_the_clock_is_right_again_after_a_laptop_slept() -> None:
    found = run(
        CLOCK
        + """
        await samples(10);
        const before = error();
        serverMs += 600_000; // Ten minutes in which the browser's monotonic clock stood still.
        rttMs = 6; // And no sample since is better than those before.
        await samples(1);
        console.log(JSON.stringify([before, error()]));
        """
    )
    assert found == [0, 0]


def test_the_clock_keeps_its_best_sample_while_nothing_has_leapt() -> None:
    """A slow round trip is off by up to half of it, and no reason to doubt the better ones."""
    found = run(
        CLOCK
        + """
        await samples(5);
        const rtts = [];
        for (rttMs of [400, 30, 2000]) {
          await samples(1);
          rtts.push(clock.best.rttMs);
        }
        serverMs += 40; // Drift.
        await samples(1);
        rtts.push(clock.best.rttMs);
        console.log(JSON.stringify(rtts));
        """
    )
    assert found == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("path", "channel"),
    [
        ("/watch/dev", "dev"),
        ("/watch/no%20one", "no one"),
        ("/watch/dev/", "dev"),
        ("/watch/%E0", "%E0"),
        ("/watch/50%", "50%"),
        ("/", ""),
    ],
)
def test_a_page_finds_its_channel_in_any_address(path: str, channel: str) -> None:
    """One that is malformed names a channel that is offline: the page must say so, not fail."""
    script = "const { channelOf } = await import(`${web}/player.js`);"
    assert run(f"{script} console.log(JSON.stringify(channelOf({json.dumps(path)})));") == channel
