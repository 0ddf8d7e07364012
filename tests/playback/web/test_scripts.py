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
let nowMs = 10_000, look = () => {};
Object.defineProperty(globalThis, "performance", { value: { now: () => nowMs } });
globalThis.setInterval = (then) => { look = then; return 7; };
const samples = [], given = [];
class Stock {
  constructor(hls) {
    this.hls = hls;
    this.bwEstimator = { sample: (ms, bytes) => samples.push([ms, bytes]),
      getEstimate: () => hls.bps };
  }
  destroy() { this.hls = null; }
  onFragLoaded() {}
  onFragBuffered() { this.bwEstimator.sample(1, 1); }
  get nextAutoLevel() { return hls.wanted; }
  set nextAutoLevel(level) { given.push(["set", level]); }
  resetEstimator(bps) { given.push(["estimate", Math.round(bps)]); }
}
const { makeAbrController, RoundTrip } = await import(`${web}/abr.js`);
const Abr = makeAbrController({ DefaultConfig: { abrController: Stock },
  Events: { FRAG_LOAD_EMERGENCY_ABORTED: "aborted" } }, new RoundTrip());
const frag = { type: "main", sn: 7, level: 2,
  abortRequests: () => given.push("requests aborted") };
// Three parts of a segment, the first with the key frame.
const stats = (start, end) => (
  { aborted: false, loaded: 0, total: 0, loading: { start, first: 0, end } });
const partList = [...Array(3).keys()].map((index) => ({ index, duration: 0.2, start: 20 + index / 5,
  independent: index === 0, fragment: frag, stats: stats(0, 0) }));
const details = { partList, partEnd: 20.6 };
const levels = [200, 650, 1_600].map((kbps) => (
  { loadError: 0, maxBitrate: 1_000 * kbps, details }));
const hls = { levels, autoLevelEnabled: true, minAutoLevel: 0,
  mainForwardBufferInfo: { len: 0.4, end: 20.4 },
  media: { paused: false }, streamController: { fragCurrent: frag },
  trigger: (what) => given.push(what) };
const abr = new Abr(hls);
const load = async (waitMs, tookMs, bytes = 40_000, of = frag, index = -1) => {
  const loading = { start: nowMs, first: nowMs + waitMs, end: nowMs + tookMs };
  const part = { index, duration: 0.2, stats: { loading, loaded: bytes } };
  abr.onFragLoaded("loaded", { frag: of, part });
  nowMs += tookMs;
  await new Promise((resolve) => setTimeout(resolve, 1));
};
const fled = () => [hls.nextAutoLevel, given.splice(0)];
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


@pytest.mark.parametrize(
    ("part_s", "round_trip_ms", "rungs", "seconds"),
    [
        (0.1, 2, 1, 0.3),
        (0.1, 2, 3, 0.3),
        (0.1, 33, 1, 0.3),
        (0.1, 34, 1, 1.3),
        (0.1, 50, 1, 1.3),
        (0.2, 33, 1, 0.6),
        (0.2, 33, 3, 0.85),
        (0.2, 50, 3, 1.3),
        (0.5, 200, 3, 1.5),
        (0, 200, 3, 0),
    ],
)
def test_one_holds_back_by_a_packet_lost_twice_and_by_a_part_that_is_slow(
    part_s: float, round_trip_ms: float, rungs: int, seconds: float
) -> None:
    script = f"""
    const {{ holdBackFor }} = await import(`${{web}}/abr.js`);
    const details = {{ partTarget: {part_s}, partHoldBack: {3 * part_s} }};
    console.log(JSON.stringify(holdBackFor(details, {round_trip_ms}, {rungs})));
    """
    assert run(script) == pytest.approx(seconds)


def test_a_part_slower_than_it_plays_is_fled_from_while_it_is_under_way() -> None:
    """One that takes 320 ms for 0.2 s: told by its first record, and by none of it."""
    script = """
    await load(20, 40);
    partList[2].stats = stats(nowMs, 0);
    nowMs += 90; look(); const early = given.length;
    nowMs += 60; look(); const late = fled();
    look(); const once = given.length;
    partList[2].stats = { ...stats(nowMs, 0), loaded: 16_384, total: 40_000 };
    nowMs += 2_000 + 151; look(); const again = fled();
    console.log(JSON.stringify([early, late, once, again]));
    """
    rate = [["estimate", round(8000 * 16_384 / 130)]]
    later = [["estimate", round(8000 * 16_384 / 2131)]]
    assert run(ABR + script) == [0, [0, rate], 0, [0, later]]


def test_a_part_that_came_slower_than_it_plays_is_the_last_of_its_rung() -> None:
    """What hls.js has asked for behind it is given up when it is safe: with nothing in parsing."""
    script = """
    await load(20, 40);
    await load(120, 215); const before = given.length;
    await load(148, 336); const alone = fled();
    abr.onFragBuffered("buffered", { frag, part: {} }); const nothing = fled();
    partList[2].stats = stats(nowMs, 0);
    abr.onFragBuffered("buffered", { frag, part: {} }); const more = fled();
    await load(20, 30, 5_000, { ...frag, level: 0 });
    abr.onFragBuffered("buffered", { frag, part: {} }); const after = fled();
    abr.destroy(); look();
    console.log(JSON.stringify([before, alone, nothing, more, after]));
    """
    found = [0, [0, [["estimate", 1_024_000]]], [0, []], [0, ["requests aborted", "aborted"]]]
    assert run(ABR + script) == [*found, [0, []]]


def test_the_next_part_of_a_rung_that_is_left_is_not_listed_when_it_would_be_asked_for() -> None:
    script = """
    await load(20, 40);
    const listed = () => partList.map(({ index }) => index);
    const loading = { start: nowMs, first: nowMs + 148, end: nowMs + 336 };
    const slow = { index: 0, duration: 0.2, stats: { loading, loaded: 40_000 } };
    abr.onFragLoaded("loaded", { frag, part: slow }); const at = listed();
    await Promise.resolve();
    console.log(JSON.stringify([at, listed()]));
    """
    assert run(ABR + script) == [[0], [0, 1, 2]]


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ("hls.bps = 5_000_000", 2),
        ("hls.bps = 3_100_000; hls.mainForwardBufferInfo.len = 1.9", 1),
        ("hls.mainForwardBufferInfo.len = 0.3", 1),
        ("hls.mainForwardBufferInfo = { len: 2.5, end: 20.4 }; hls.bps = 1_700_000", 2),
        ("levels[1].loadError = 1; hls.bps = 1", 2),
        ("hls.wanted = 0; hls.bps = 1", 0),
    ],
)
def test_up_only_where_the_better_rung_comes_in_time(change: str, level: int) -> None:
    script = f"""
    hls.wanted = 2; hls.bps = 5_000_000; hls.mainForwardBufferInfo.len = 0.7;
    details.partTarget = 0.2;
    await load(20, 40, 40_000, {{ ...frag, level: 1 }});
    {change};
    console.log(JSON.stringify(abr.nextAutoLevel));
    """
    assert run(ABR + script) == level


def test_not_all_that_is_wanted_comes_in_time_and_what_is_between_does() -> None:
    """Of those that are made, and that the browser's decoder goes on with."""
    script = """
    hls.wanted = 2; hls.bps = 3_100_000; hls.mainForwardBufferInfo.len = 0.8;
    details.partTarget = 0.2;
    await load(20, 40, 40_000, { ...frag, level: 0 });
    const between = abr.nextAutoLevel;
    levels[1].loadError = 1; const broken = abr.nextAutoLevel;
    levels[1].loadError = 0; levels[1].codecSet = "av01"; const other = abr.nextAutoLevel;
    hls.bps = 5_000_000; const all = abr.nextAutoLevel;
    console.log(JSON.stringify([between, broken, other, all]));
    """
    assert run(ABR + script) == [1, 0, 0, 2]


def test_a_change_waits_for_a_key_frame_that_is_listed() -> None:
    """What hls.js then sets is not what it is to stay at: it would ask no more until the next."""
    script = """
    hls.wanted = 2; hls.bps = 5_000_000; hls.mainForwardBufferInfo = { len: 0.7, end: 20.6 };
    details.partTarget = 0.2;
    await load(20, 40, 40_000, { ...frag, level: 1 }, 1);
    const inside = abr.nextAutoLevel; abr.nextAutoLevel = inside;
    await load(20, 40, 40_000, { ...frag, level: 1 }, 2);
    const unknown = abr.nextAutoLevel; abr.nextAutoLevel = unknown;
    const quiet = given.length;
    partList.push({ index: 0, duration: 0.2, start: 20.6, independent: true, fragment: { sn: 8 },
      stats: stats(0, 0) });
    details.partEnd = 20.8;
    const listed = abr.nextAutoLevel; abr.nextAutoLevel = listed;
    console.log(JSON.stringify([inside, unknown, quiet, listed, given]));
    """
    assert run(ABR + script) == [1, 1, 0, 2, [["set", 2]]]


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ("0", 2),  # 0.4 s of a rung of 1.6 Mbps come in 0.49 s, and 0.7 s are there.
        ("hls.bps = 600_000", 0),  # In 1.07 s.
        ("hls.mainForwardBufferInfo.len = 0.45", 0),
        ("levels[2].loadError = 1", 0),
        ("partList[0].independent = false", 0),  # Nobody knows when the next one comes.
        ("partList[2].independent = true", 0),  # It is next.
        ("hls.wanted = 1", 2),
    ],
)
def test_down_at_a_key_frame_too_if_there_is_time_for_that(change: str, level: int) -> None:
    """Parts of 0.2 s, with a key frame each 0.6 s: the last one, at 20.0 s."""
    script = f"""
    hls.wanted = 0; hls.bps = 1_300_000; hls.mainForwardBufferInfo = {{ len: 0.7, end: 20.2 }};
    details.partTarget = 0.2; details.partEnd = 20.6;
    partList.unshift({{ ...partList[0], index: 3, start: 19.4, fragment: {{ sn: 6 }} }});
    partList[1].start = 20.0;
    {change};
    await load(20, 40, 40_000, frag, 0);
    console.log(JSON.stringify(abr.nextAutoLevel));
    """
    assert run(ABR + script) == level


def test_a_change_that_has_begun_comes_to_its_end() -> None:
    """hls.js takes the playlist of the rung that it goes back to for one that stands still."""
    script = """
    await load(20, 40, 40_000, { ...frag, level: 1 }, 2);
    hls.loadLevel = 2; hls.wanted = 1; const up = abr.nextAutoLevel;
    hls.wanted = 0; const worse = abr.nextAutoLevel;
    hls.wanted = 1; nowMs += 1_499; const still = abr.nextAutoLevel;
    nowMs += 1; const over = abr.nextAutoLevel;
    hls.loadLevel = 0; hls.wanted = 2; const down = abr.nextAutoLevel;
    await load(20, 40, 40_000, { ...frag, level: 0 }, 2);
    hls.wanted = 0; const done = abr.nextAutoLevel;
    console.log(JSON.stringify([up, worse, still, over, down, done]));
    """
    assert run(ABR + script) == [2, 0, 2, 1, 0, 0]


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ("0", True),
        ("hls.streamController.state = 'PARSING'", False),
        ("partList[2].independent = false", False),
        ("hls.mainForwardBufferInfo.len = 1.7", False),
    ],
)
def test_a_slow_part_with_a_key_frame_is_given_up_under_way(*, change: str, gone: bool) -> None:
    """The other rung goes on in its stead; not while hls.js parses, when it would stand still."""
    script = f"""
    partList[2].independent = true; hls.streamController.state = "FRAG_LOADING";
    {change};
    await load(20, 40);
    partList[2].stats = stats(nowMs, 0);
    nowMs += 151; look();
    console.log(JSON.stringify(given.includes("requests aborted")));
    """
    assert run(ABR + script) is gone


def test_a_change_that_has_begun_comes_to_its_end_unless_that_rung_is_fled_from() -> None:
    """Up from the lowest, and the network becomes slow with the first part: back to it at once."""
    script = """
    partList[2].independent = true; hls.streamController.state = "FRAG_LOADING";
    await load(20, 40, 40_000, { ...frag, level: 0 }, 1);
    hls.loadLevel = 2; hls.wanted = 1; const begun = abr.nextAutoLevel;
    partList[2].stats = stats(nowMs, 0); nowMs += 151; look();
    hls.wanted = 0; const then = abr.nextAutoLevel;
    console.log(JSON.stringify([begun, then, given.filter((each) => each[0] !== "estimate")]));
    """
    fled = ["requests aborted", "aborted"]
    assert run(ABR + script) == [2, 0, fled]
    # Where hls.js sets what it is to stay at, that is not taken; where it is fled to, it is.
    script = f"""
    Object.defineProperty(hls, "nextAutoLevel", {{ set: (to) => {{ abr.nextAutoLevel = to; }} }});
    {script}
    """
    assert run(ABR + script) == [2, 0, [["set", 0], *fled]]


def test_a_change_to_a_rung_that_cannot_be_had_does_not_go_on() -> None:
    """hls.js asks at once where to go instead, and does not ask again if it is told the same."""
    script = """
    await load(20, 40, 40_000, { ...frag, level: 0 }, 2);
    hls.loadLevel = 2; hls.wanted = 2; const begun = abr.nextAutoLevel;
    levels[2].loadError = 1; hls.wanted = 0; const gone = abr.nextAutoLevel;
    console.log(JSON.stringify([begun, gone]));
    """
    assert run(ABR + script) == [2, 0]


def test_a_rung_that_is_left_out_of_the_list_is_not_asked_for_its_parts() -> None:
    script = """
    await load(20, 40, 40_000, frag, 0);
    levels.pop(); hls.wanted = 1;
    console.log(JSON.stringify(abr.nextAutoLevel));
    """
    assert run(ABR + script) == 1


@pytest.mark.parametrize(
    ("change", "times"),
    [
        ("0", 2),
        ("hls.autoLevelEnabled = false", 1),  # Who chooses a slow rung gets it.
        ("levels[0].loadError = 1; frag.level = 1", 2),  # The next one up, whose time is not over,
        ("levels[0].loadError = 1; frag.level = 1; nowMs += 1_500", 1),  # and when it is.
    ],
)
def test_nothing_is_given_up_for_ever_for_a_rung_that_does_not_come(
    change: str, times: int
) -> None:
    """The same key frame would be asked for again and again."""
    script = f"""
    partList[2].independent = true; hls.streamController.state = "FRAG_LOADING";
    await load(20, 40);
    partList[2].stats = stats(nowMs, 0); nowMs += 151; look();
    {change};
    partList[2].stats = stats(nowMs, 0); nowMs += 400; look();
    console.log(JSON.stringify(given.filter((each) => each === "requests aborted").length));
    """
    assert run(ABR + script) == times


@pytest.mark.parametrize(("wait_ms", "took_ms"), [(260, 270), (30, 250), (280, 300)])
def test_a_packet_that_was_lost_makes_no_link_slow(wait_ms: int, took_ms: int) -> None:
    script = f"await load(20, 40); await load({wait_ms}, {took_ms});"
    assert run(f"{ABR}{script} console.log(JSON.stringify(given));") == []


def test_one_flees_to_the_lowest_rung_that_is_made() -> None:
    script = "levels[0].loadError = 1; await load(20, 40); await load(420, 900);"
    script += "console.log(JSON.stringify(fled()));"
    assert run(ABR + script) == [1, [["estimate", 393_600]]]


@pytest.mark.parametrize(
    "calm",
    [
        "hls.mainForwardBufferInfo.len = 1.7",
        "hls.autoLevelEnabled = false",
        "hls.media.paused = true",
        "frag.level = 0",
        "levels[0].loadError = levels[1].loadError = 1",
        "levels[2].details = null",
        "hls.mainForwardBufferInfo = null",
    ],
)
def test_nobody_flees_who_has_time_or_nowhere_to_go(calm: str) -> None:
    script = (
        f"{calm}; await load(20, 40); await load(420, 900); console.log(JSON.stringify(given));"
    )
    assert run(ABR + script) == []


@pytest.mark.parametrize(
    ("state", "end", "expected"),
    [
        ("OK", 76.999999, "76/1 76/2"),  # As a browser rounds it.
        ("OK", 76.7, "76/1"),
        ("OK", 76.2, ""),
        ("PARTIAL", 76.999999, ""),  # It is being loaded.
        ("NOT_LOADED", 76.999999, ""),  # It is another rung's.
    ],
)
def test_what_is_buffered_is_not_waited_for(state: str, end: float, expected: str) -> None:
    """Parts of 1/3 s: hls.js has forgotten two of them, and the next segment's first is to come."""
    script = f"""
    const {{ passOverBuffered }} = await import(`${{web}}/parts.js`);
    const part = (sn, index, loaded) => (
      {{ fragment: {{ sn }}, index, loaded, gap: false, start: sn + index / 3, end: sn + (index + 1) / 3 }});
    const parts = [part(76, 0, true), part(76, 1, false), part(76, 2, false), part(77, 0, false)];
    const buffered = {{ length: 1, start: () => 46, end: () => {end} }};
    const stateOf = ({{ sn }}) => (sn === 76 ? "{state}" : "NOT_LOADED");
    passOverBuffered(parts, stateOf, buffered);
    passOverBuffered(undefined, stateOf, buffered); // A playlist without parts.
    const gaps = parts.filter((one) => one.gap);
    console.log(JSON.stringify(gaps.map((one) => `${{one.fragment.sn}}/${{one.index}}`).join(" ")));
    """  # noqa: E501
    assert run(script) == expected


@pytest.mark.parametrize(
    ("behind_s", "hold_back_s", "buffer_s", "rate", "wanted"),
    [
        (0.6, 0.6, 0.5, 1, 1),
        (0.99, 0.6, 0.8, 1, 1),
        (1.01, 0.6, 0.8, 1, 1.05),
        (0.9, 0.6, 0.8, 1, 1),
        (0.9, 0.6, 0.8, 1.05, 1.05),  # Until it is near.
        (0.69, 0.6, 0.5, 1.05, 1),
        (2.59, 0.6, 2.0, 1, 1.05),
        (2.61, 0.6, 2.0, 1, 1.1),
        (5.0, 0.6, 0.35, 1.1, 1),  # It would run dry.
        (5.0, 0.6, 0.36, 1, 1.1),
        (5.0, 0.3, 0.24, 1, 1),
        (12.59, 0.6, 9.0, 1, 1.1),
        (12.61, 0.6, 0.0, 1, 0),  # To live at once.
        (0.2, 0.6, 0.2, 1.05, 1),
    ],
)
def test_who_is_behind_comes_nearer(
    *, behind_s: float, hold_back_s: float, buffer_s: float, rate: float, wanted: float
) -> None:
    script = f"""
    const {{ rateFor }} = await import(`${{web}}/nearer.js`);
    const at = {{ behindS: {behind_s}, holdBackS: {hold_back_s}, bufferS: {buffer_s} }};
    console.log(JSON.stringify(rateFor({{ ...at, rate: {rate} }})));
    """
    assert run(script) == wanted


def test_stalls_are_forgotten_each_time_later() -> None:
    script = """
    const { Calm } = await import(`${web}/nearer.js`);
    const calm = new Calm(), found = [];
    let now = 1_000;
    const forgets = () => {
      const began = now;
      while (!calm.forgets(now) && now - began < 900_000) now += 1_000;
      return now - began;
    };
    found.push(calm.forgets(now));
    for (let i = 0; i < 7; i++) { calm.stalled(now); found.push(forgets()); now += 1_000; }
    calm.stalled(now); now += 599_000; calm.stalled(now); found.push(forgets());
    now += 600_000; calm.stalled(now); found.push(forgets());
    console.log(JSON.stringify(found));
    """
    seconds = [30, 60, 120, 240, 480, 600, 600, 600, 30]
    assert run(script) == [False, *(1000 * each for each in seconds)]
