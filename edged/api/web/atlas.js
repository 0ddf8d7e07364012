// The network page: asks for the lines of the last hour that it lacks, and draws the moment that was
// chosen, or now.

import { $, attr, el, icon, keyed, setIcon, text } from "./dom.js";
import { Door } from "./door.js";
import { concerns, isMark, lines, verdict } from "./events.js";
import { History } from "./history.js";
import { LOADS } from "./layout.js";
import { Scene, summary } from "./scene.js";
import { clockOf, Timeline } from "./timeline.js";
import { ago, ms, number, plural, rate } from "./words.js";

const POLL_MS = 2_000;
const PLAY_MS = 90; // A sample: an hour in a minute.
const RATES_S = 60; // What is told per minute, or per second, is of so long.
const LOG_S = 900; // What moved is told of so long before the moment.
const FLOWS_MAX = 8;

const past = new History();
let live = true;
let playing = 0;
let seq = 0; // Of the sample that is shown, while it is not the newest.
let selected = "";
let seen = null;
let named = null; // Whose names can be found.
let behind = false; // There is more than what is shown.

const scene = new Scene($("scene"), $("tip"), select);
const timeline = new Timeline($("hour"));
const door = new Door({ main: $("network"), path, take, pollMs: POLL_MS });

// --- Asking

function path() {
  return past.cursor ? `/network.jsonl?after=${past.cursor}` : "/network.jsonl";
}

async function take(response) {
  const answer = await response.text();
  if (response.status === 404) {
    showNothing("There is no network to draw here", `${answer.trim().replace(/^./, (letter) => letter.toUpperCase())}.`);
    return false;
  }
  if (!response.ok) throw new Error(answer.trim());
  let came = 0;
  try {
    came = past.take(answer);
  } catch (error) {
    past.clear(); // The next answer has the whole hour again.
    throw error;
  }
  behind ||= came > 0;
  if (!came) showNow(); // While more comes, it is not yet now.
  return came > 0;
}

function showNow() {
  if (past.last < 0) showNothing("No history yet", "IRS has only just started: the first sample is there within 5 seconds.");
  else if (!past.newest.pops.length && !past.newest.origins.length) showNothing("Nobody is here yet", "IRS runs, but no PoP and no origin has connected to it: see irs_client.addresses in their files.");
  else {
    $("nothing").hidden = true;
    $("board").hidden = false;
    if (behind) show();
  }
  behind = false;
}

function showNothing(head, why) {
  $("nothing").hidden = false;
  $("board").hidden = true;
  text($("nothing-head"), head);
  text($("nothing-why"), why);
}

// --- The moment that is shown

const place = () => (live ? past.last : Math.max(0, Math.min(past.last, seq - past.samples[0].seq)));

function show() {
  if (past.last < 0) return;
  const index = place();
  seen = past.at(index);
  showMoment(index);
  scene.show(seen);
  timeline.show(past, index);
  showSlider(index);
  showLog(index);
  showDetail();
  showNames();
  $("show-relays").hidden = !seen.relays.length;
  $("key-relays").hidden = !seen.relays.length;
}

function showSlider(index) {
  const slider = $("slider");
  attr(slider, "max", past.last);
  if (Number(slider.value) !== index) slider.value = index;
  const passed = past.samples[past.last].at - seen.at;
  const words = passed < 1 ? "now" : `${ago(passed)} ago`;
  attr(slider, "aria-valuetext", `${clockOf(seen.at)}, ${words}`);
  text($("clock"), clockOf(seen.at));
  attr($("clock"), "datetime", new Date(seen.at * 1000).toISOString());
  text($("clock-ago"), words);
  attr($("live"), "aria-pressed", String(live));
  attr($("play"), "aria-pressed", String(playing !== 0));
  attr(document.body, "data-then", !live);
}

function showMoment(index) {
  const { state, text: words, rest } = verdict(seen);
  attr($("moment"), "data-state", state);
  if (!$("verdict-icon").firstChild) $("verdict-icon").append(icon(state));
  setIcon($("verdict-icon").firstChild, state);
  text($("headline"), words);
  const parts = [plural(seen.pops.length, "PoP"), plural(seen.origins.length, "origin"), plural(seen.links.length, "link")];
  const standing = { active: "IRS is the active one", alone: "IRS is alone", standby: "this IRS stands by", campaign: "this IRS asks for an epoch" }[seen.irs.standing] ?? "";
  text($("also"), rest || `${parts.join(", ")}; ${standing}.`);
  document.title = `${{ ok: "✓", warn: "▲", bad: "✕" }[state]} ${clockOf(seen.at)} · edged network`;
  const from = past.indexAt(seen.at - RATES_S);
  const window = past.samples.slice(Math.min(from + 1, index), index + 1);
  const span = Math.max(past.samples[index].frame.interval_s, seen.at - past.samples[from].at);
  const sum = (value) => window.reduce((whole, sample) => whole + value(sample), 0);
  const { totals } = seen;
  const arrivals = sum((sample) => sample.totals.arrivals) / span;
  const moved = (60 * sum((sample) => sample.moved)) / span;
  const refused = (60 * sum((sample) => sample.totals.refused)) / span;
  const figures = {
    streams: [number(totals.streams)],
    use: [totals.slots ? number((100 * totals.used) / totals.slots, 0) : "–"],
    arrivals: [number(arrivals, arrivals < 10 ? 1 : 0)],
    moved: [number(moved, 0)],
    refused: [number(refused, 0), refused >= 0.5 ? "warn" : null],
  };
  for (const figure of $("figures").children) {
    const [value, mark] = figures[figure.dataset.figure];
    text(figure.querySelector("output"), value);
    attr(figure, "data-state", mark ?? null);
  }
}

function showLog(index) {
  const now = past.samples[index];
  const first = past.events.findIndex((event) => event.at > now.at - LOG_S);
  const until = past.events.filter((event, at) => at >= first && first >= 0 && event.index <= now.seq);
  const found = lines(until, { about: selected || null });
  text($("log-head"), selected ? `What happened to ${selected.replace(/^\w+ /, "")}` : "What moved, and why");
  text($("log-until"), live ? "" : `to ${clockOf(now.at)}`);
  const fresh = now.at - past.samples[index].frame.interval_s;
  keyed($("lines"), found, (line) => line.key, makeLine, (node, line) => {
    const [mark, when, words] = node.firstChild.children;
    attr(node, "data-state", line.state);
    attr(node, "data-fresh", line.until > fresh);
    setIcon(mark, line.state === "idle" ? "idle" : line.state);
    text(when, clockOf(line.until));
    text(words.children[0], line.head);
    text(words.children[1], line.rest);
    text(words.children[2], line.where);
    attr(node.firstChild, "data-subject", line.subject);
  });
  $("lines-empty").hidden = found.length > 0;
  text($("lines-empty"), `Nothing in the ${LOG_S / 60} minutes before.`);
}

function makeLine() {
  const button = el("button", { type: "button", class: "line" }, icon("idle"), el("time"), el("span", { class: "words" }, el("b"), el("span"), el("span", { class: "ways" })));
  button.addEventListener("click", () => select(button.dataset.subject));
  return el("li", {}, button);
}

// --- What is selected

const all = () => [...seen.pops, ...seen.origins, ...seen.links];

function select(key) {
  selected = key === selected ? "" : key;
  scene.select(selected);
  if (selected) scene.reveal(selected);
  if (!seen) return;
  const one = all().find((each) => each.key === selected);
  text($("said"), one ? summary(one) : ""); // For who goes through the map by its keys, and hears it.
  showDetail();
  showLog(place());
}

function showDetail() {
  const one = selected ? all().find((each) => each.key === selected) : null;
  $("detail").hidden = !one;
  if (!one) return;
  text($("detail-head"), one.kind === "pop" ? `PoP ${one.name}` : one.kind === "origin" ? `Origin ${one.name}` : `Link ${one.name}`);
  text($("detail-state"), one.word);
  attr($("detail-state"), "data-state", one.health);
  keyed($("detail-facts"), facts(one), ([name]) => name, ([name]) => el("div", {}, el("dt", {}, name), el("dd")), (node, [, value]) => text(node.lastChild, value));
  const flows = seen.flows.filter((flow) => one.key === `pop ${flow.pop}` || one.key === `origin ${flow.origin}`);
  const whole = flows.reduce((sum, flow) => sum + flow.units, 0);
  const other = one.kind === "pop" ? "origin" : "pop";
  text($("detail-flows-head"), one.kind === "link" ? "" : one.kind === "pop" ? `Goes to ${plural(flows.length, "origin")}` : `Comes from ${plural(flows.length, "PoP")}`);
  keyed($("detail-flows"), one.kind === "link" ? [] : flows.slice(0, FLOWS_MAX), (flow) => flow[other], makeBar, (node, flow) => {
    const [name, bar, count] = node.firstChild.children;
    text(name, flow[other]);
    bar.firstChild.style.setProperty("width", `${(100 * flow.units) / flows[0].units}%`);
    text(count, `${number(flow.units)} · ${number((100 * flow.units) / whole, 0)} %`);
    attr(node.firstChild, "data-subject", `${other} ${flow[other]}`);
  });
  showRelays(one);
}

// Channels that a PoP takes from others, and gives to others: → that is to whom they go.
function showRelays(one) {
  const relays = one.kind === "pop" ? seen.relays.filter(({ from, to }) => from === one.name || to === one.name) : [];
  text($("detail-relays-head"), relays.length ? "Relays, by channels" : "");
  const other = ({ from, to }) => (from === one.name ? to : from);
  keyed($("detail-relays"), relays.slice(0, FLOWS_MAX), ({ from, to }) => `${from} ${to}`, makeBar, (node, relay) => {
    const [name, bar, count] = node.firstChild.children;
    text(name, `${relay.from === one.name ? "→" : "←"} ${other(relay)}`);
    bar.firstChild.style.setProperty("width", `${(100 * relay.channels) / relays[0].channels}%`);
    text(count, number(relay.channels));
    attr(node.firstChild, "data-subject", `pop ${other(relay)}`);
    attr(node.firstChild, "data-relay", true);
  });
}

function makeBar() {
  const button = el("button", { type: "button", class: "bar" }, el("span"), el("span", { class: "track" }, el("i")), el("span", { class: "num" }));
  button.addEventListener("click", () => select(button.dataset.subject));
  return el("li", {}, button);
}

// Channels that IRS has a PoP hold, and that come from others or go there; nothing where there are none.
function reachFacts({ reach, relays }) {
  if (!reach.holds && !reach.relayed && !relays) return [];
  return [["Holds", number(reach.holds)], ["Unwatched", rate(reach.hold_mbps * 1e6)], ["From PoPs", number(reach.relayed)], ["To PoPs", number(relays)]];
}

function facts(one) {
  const site = one.site >= 0 && seen.sites[one.site] ? [["Site", seen.sites[one.site][0]]] : [];
  if (one.kind === "pop") {
    const each = past.samples[place()].frame.interval_s;
    return [["Units", number(one.streams)], [`New in ${each} s`, number(one.arrivals)], ["No place", number(one.unplaced)], ["Refused", number(one.refusals)], ["Load", one.load === null ? "not told" : `${one.load} %`], ...reachFacts(one), ...site];
  }
  if (one.kind === "origin") {
    return [["Used", `${number(one.used)} of ${number(one.slots)}`], ["Partner", number(one.partner)], ["Affiliate", number(one.affiliate)], ["Basic", number(one.basic)], ["Session", one.connected ? "up" : "none"], ...site];
  }
  return [
    ["Carries", rate(one.mbps * 1e6)], ["Price", one.price_ms ? ms(one.price_ms) : "none"], [`To ${one.ends[1]}`, `${one.use_percent} %`], [`To ${one.ends[0]}`, `${one.use_back_percent} %`],
    ["Round trip", one.rtt_tenth_ms < 0 ? "not known" : ms(one.rtt_tenth_ms / 10)], ["Loss", one.loss_hundredth_percent < 0 ? "not known" : `${number(one.loss_hundredth_percent / 100, 2)} %`],
  ];
}

function showNames() {
  const { frame } = past.samples[place()];
  if (named === frame) return;
  named = frame;
  keyed($("names"), all(), (one) => one.key, () => el("option"), (node, one) => {
    attr(node, "value", one.name);
    attr(node, "label", { pop: "PoP", origin: "Origin", link: "Link" }[one.kind]);
  });
}

// --- Time

function go(index) {
  const held = Math.max(0, Math.min(past.last, index));
  live = held === past.last && !playing;
  seq = past.samples[held].seq;
  show();
}

function follow() {
  stop();
  live = true;
  show();
}

function stop() {
  clearInterval(playing);
  playing = 0;
}

function play() {
  if (playing) {
    stop();
    show();
    return;
  }
  if (past.last < 1) return;
  const from = place() === past.last ? 0 : place();
  playing = setInterval(() => (place() >= past.last ? follow() : go(place() + 1)), PLAY_MS);
  go(from);
}

// To the sample in which something happened, before or after the one that is shown.
function hop(direction) {
  stop();
  const now = past.samples[place()].seq;
  const marks = past.events.filter((event) => isMark(event) && (!selected || concerns(event, selected))).map((event) => event.index);
  const found = direction < 0 ? marks.filter((mark) => mark < now).pop() : marks.find((mark) => mark > now);
  go(found === undefined ? (direction < 0 ? 0 : past.last) : found - past.samples[0].seq);
}

// --- By hand

$("slider").addEventListener("input", () => {
  stop();
  go(Number($("slider").value));
});
$("play").addEventListener("click", play);
$("live").addEventListener("click", follow);
$("previous").addEventListener("click", () => hop(-1));
$("next").addEventListener("click", () => hop(1));
$("deselect").addEventListener("click", () => select(""));
$("zoom-in").addEventListener("click", () => scene.zoomBy(1.6));
$("zoom-out").addEventListener("click", () => scene.zoomBy(1 / 1.6));
$("zoom-fit").addEventListener("click", () => scene.reset());
$("find").addEventListener("input", () => {
  const wanted = $("find").value.trim().toLowerCase();
  const one = wanted && seen ? all().find((each) => each.name === wanted) : null;
  if (one && one.key !== selected) select(one.key);
});
for (const layer of ["links", "flows", "relays"]) {
  $(`show-${layer}`).addEventListener("click", (event) => {
    scene[layer] = !scene[layer];
    attr(event.currentTarget, "aria-pressed", String(scene[layer]));
    scene.draw();
  });
}
const KEYS = {
  " ": play, l: follow, ",": () => hop(-1), ".": () => hop(1), "+": () => scene.zoomBy(1.6), "-": () => scene.zoomBy(1 / 1.6), 0: () => scene.reset(),
  ArrowLeft: () => go(place() - 1), ArrowRight: () => go(place() + 1), Escape: () => select(""), "/": () => $("find").focus(),
};
document.addEventListener("keydown", (event) => {
  const { target } = event;
  const typing = target instanceof HTMLInputElement && (target.type !== "range" || event.key.startsWith("Arrow"));
  const pressing = target instanceof HTMLButtonElement && event.key === " ";
  const does = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!does || typing || pressing || event.ctrlKey || event.metaKey || event.altKey || $("network").hidden || past.last < 0) return;
  event.preventDefault();
  does(event);
});

function drawKey() {
  const bounds = [0, ...LOADS];
  const swatches = bounds.map((from, step) => el("li", { class: "swatch", "data-load": step }, el("i"), step === bounds.length - 1 ? `≥ ${from}` : step ? `${from}–${bounds[step + 1]}` : `< ${bounds[1]}`));
  const states = [["warn", "look at it"], ["bad", "broken"]].map(([state, word]) => el("li", { "data-state": state }, icon(state), word));
  $("key").append(el("li", { class: "of" }, "Load, %"), ...swatches, el("li", { class: "cut" }, el("i"), "cut"), el("li", { class: "units" }, el("i"), "flow, by units"), el("li", { class: "relays", id: "key-relays", hidden: "" }, el("i"), "relay"), el("li", { class: "ring" }, el("i"), "origin"), el("li", { class: "dot" }, el("i"), "PoP"), ...states);
}

drawKey();
door.open();
