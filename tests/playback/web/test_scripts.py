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


def test_rungs_are_told_by_height_rate_and_bitrate_and_where_equal_by_codec() -> None:
    script = """
    const { rungChoices } = await import(`${web}/menu.js`);
    const rung = (height, frameRate, bitrate, videoCodec) => ({ height, frameRate, bitrate, videoCodec });
    const rungs = [rung(1080, 60, 6e6, "avc1.64"), rung(720, 59.94, 2.42e6, "avc1.64"),
      rung(720, 60, 1.5e6, "av01.0"), rung(160, 30, 250e3, "avc1.4d"), rung(0, 0, 96e3)];
    console.log(JSON.stringify(rungChoices([...rungs.entries()])));
    """  # noqa: E501
    assert run(script) == [
        [0, "1080p60", "6.0 Mbps"],
        [1, "720p60 H.264", "2.4 Mbps"],
        [2, "720p60 AV1", "1.5 Mbps"],
        [3, "160p30", "250 kbps"],
        [4, "96 kbps", ""],
    ]


def test_a_latency_is_remembered_only_where_the_browser_lets_it() -> None:
    script = """
    const { rememberedLatency } = await import(`${web}/menu.js`);
    const found = [rememberedLatency()];
    for (const kept of ["standard", "low", "nonsense"]) {
      Object.defineProperty(globalThis, "localStorage",
        { value: { getItem: () => kept }, configurable: true });
      found.push(rememberedLatency());
    }
    console.log(JSON.stringify(found));
    """
    assert run(script) == ["low", "standard", "low", "low"]


# hls.js's controller as far as ours relies on it, and an estimator that notes what it is told.
ABR = """
let nowMs = 10_000;
Object.defineProperty(globalThis, "performance", { value: { now: () => nowMs } });
const samples = [], given = [];
class Stock {
  constructor(hls) {
    this.hls = hls;
    this.bwEstimator = { sample: (ms, bytes) => samples.push([ms, bytes]) };
  }
  onFragLoaded() {}
  onFragBuffered() { this.bwEstimator.sample(1, 1); }
  resetEstimator(bps) { given.push(["estimate", Math.round(bps)]); }
}
const { makeAbrController } = await import(`${web}/abr.js`);
const Abr = makeAbrController({ DefaultConfig: { abrController: Stock },
  Events: { FRAG_LOAD_EMERGENCY_ABORTED: "aborted" } });
const frag = { type: "main", level: 2, abortRequests: () => given.push("requests aborted") };
const hls = { autoLevelEnabled: true, minAutoLevel: 0, mainForwardBufferInfo: { len: 0.4 },
  media: { paused: false }, streamController: { fragCurrent: frag },
  trigger: (what) => given.push(what) };
const abr = new Abr(hls);
const load = async (waitMs, tookMs, bytes = 40_000, of = frag) => {
  const loading = { start: nowMs, first: nowMs + waitMs, end: nowMs + tookMs };
  const part = { duration: 0.2, stats: { loading, loaded: bytes } };
  abr.onFragLoaded("loaded", { frag: of, part });
  nowMs += tookMs;
  await new Promise((resolve) => setTimeout(resolve, 1));
};
"""


def test_only_the_round_trip_is_left_out_of_a_parts_time() -> None:
    """What more its first byte took is the slow link's: a TLS record comes as a whole."""
    script = """
    await load(50, 60); await load(150, 170); await load(52, 62, 8_000, { ...frag, type: "audio" });
    abr.onFragBuffered("buffered", { frag, part: {} });
    abr.onFragBuffered("buffered", { frag });
    console.log(JSON.stringify([samples, given]));
    """
    assert run(ABR + script) == [[[10, 40_000], [120, 40_000], [1, 1]], []]


def test_a_part_slower_than_it_plays_is_fled_from_once_in_a_while() -> None:
    script = """
    await load(20, 210); const before = given.length;
    await load(20, 320); const fled = given.splice(0); const level = hls.nextAutoLevel;
    await load(20, 320); const soon = given.length;
    nowMs += 6_000;
    await load(20, 320); const later = given.length;
    console.log(JSON.stringify([before, fled, level, soon, later]));
    """
    fled = [["estimate", 1_000_000], "requests aborted", "aborted"]
    assert run(ABR + script) == [0, fled, 0, 0, 3]


@pytest.mark.parametrize(
    "calm",
    [
        "hls.mainForwardBufferInfo.len = 2.1",
        "hls.autoLevelEnabled = false",
        "hls.media.paused = true",
        "frag.level = 0",
    ],
)
def test_nobody_flees_who_has_time_or_nowhere_to_go(calm: str) -> None:
    script = f"{calm}; await load(20, 900); console.log(JSON.stringify(given));"
    assert run(ABR + script) == []
