// The status page: asks for /status.json once a second while someone can see it, and shows it.

import { setSpark, spark } from "./charts.js";
import { $, attr, el, icon, keyed, setIcon, text } from "./dom.js";
import { Door } from "./door.js";
import { showIrs } from "./irs.js";
import { NetworkMap } from "./map.js";
import { findings, headline, line, network } from "./network.js";
import { setFacts, showStreams } from "./streams.js";
import { bits, bytes, duration, ms, number, plural, rate } from "./words.js";

const POLL_MS = 1_000;
const FILTER_MS = 200;
const FINDINGS_SHOWN = 2; // The room that is kept for them, so that nothing below moves.
const FINDINGS_MAX = 30;

let status = null; // The last one that came.
const map = new NetworkMap($("map"));

const door = new Door({ main: $("status"), path, take, pollMs: POLL_MS });

// --- Asking

function path() {
  const query = new URLSearchParams({ sort: $("sort").value });
  const wanted = $("filter").value.trim();
  if (wanted) query.set("filter", wanted);
  return `/status.json?${query}`;
}

async function take(response) {
  if (!response.ok) throw new Error((await response.text()).trim());
  status = await response.json();
  show();
  return false;
}

// --- Showing

const TILES = {
  streams: (totals) => ({ value: number(totals.streams), history: totals.streams_history, floor: 4 }),
  viewers: (totals) => ({ value: number(totals.viewers), history: totals.viewers_history, floor: 4 }),
  in: (totals) => ({ value: bits(totals.in_bps)[0], unit: bits(totals.in_bps)[1], history: totals.in_kbps_history, floor: 500 }),
  out: (totals) => ({ value: bits(totals.out_bps)[0], unit: bits(totals.out_bps)[1], history: totals.out_kbps_history, floor: 500 }),
  lag: (totals) => ({ value: number(totals.lag_ms_max, totals.lag_ms_max < 10 ? 1 : 0), unit: "ms", history: totals.lag_ms_history, floor: 20, state: totals.lag_ms_max >= 500 ? "bad" : totals.lag_ms_max >= 100 ? "warn" : "ok" }),
  warnings: (totals) => ({ value: number(totals.warnings), unit: totals.warned_streams ? `in ${plural(totals.warned_streams, "stream")}` : "", state: totals.warnings ? "warn" : "ok" }),
};

function showTiles() {
  for (const tile of $("tiles").children) {
    const { value, unit, history, floor, state } = TILES[tile.dataset.tile](status.totals);
    const [output, small] = tile.querySelector("dd").children;
    text(output, value);
    if (small) text(small, unit ?? "");
    attr(tile, "data-state", state ?? null);
    if (history) {
      if (!tile.querySelector(".spark")) tile.append(spark(`${tile.firstElementChild.textContent} over the last minute`));
      setSpark(tile.querySelector(".spark"), history, floor);
    }
  }
}

function showVerdict(seen) {
  const found = findings(status, seen);
  const { state, text: words, rest } = headline(status, seen, found);
  attr($("verdict"), "data-state", state);
  if (!$("verdict-icon").firstChild) $("verdict-icon").append(icon(state));
  setIcon($("verdict-icon").firstChild, state);
  text($("headline"), words);
  document.title = `${{ ok: "✓", warn: "▲", bad: "✕" }[state]} ${status.totals.streams} live · edged status`;
  const all = $("all-findings");
  const unfold = all.getAttribute("aria-expanded") === "true";
  attr(all, "hidden", found.length <= FINDINGS_SHOWN);
  text(all, unfold ? "Show less" : `Show all ${found.length}`);
  const shown = found.slice(0, unfold ? FINDINGS_MAX : FINDINGS_SHOWN).map((one, index) => ({ state: one.state, text: line(one, index === 0) })).filter((one) => one.text);
  if (rest) shown.push({ state: "ok", text: rest });
  if (unfold && found.length > FINDINGS_MAX) shown.push({ state: "warn", text: `And ${found.length - FINDINGS_MAX} more.` });
  shown.forEach((one, index) => (one.row = index));
  keyed($("findings"), shown, (one) => one.row, () => el("li"), (node, one) => {
    attr(node, "data-state", one.state);
    text(node, one.text);
  });
}

function showList() {
  const { streams, streams_matching: matching, totals } = status;
  showStreams($("rows"), streams);
  const filtered = $("filter").value.trim() !== "";
  text($("streams-count"), filtered ? `${number(matching)} of ${number(totals.streams)}` : totals.streams ? number(totals.streams) : "");
  attr($("empty"), "hidden", streams.length > 0);
  text($("empty"), filtered ? "No live stream matches the filter." : status.pops.length ? "Nobody publishes here now. A stream appears as soon as someone does." : "No streams here now.");
  attr($("more"), "hidden", matching <= streams.length);
  text($("more"), `${number(streams.length)} of ${number(matching)} are shown; the filter finds the others.`);
}

const cells = (count, numbers) => () => el("tr", {}, ...Array.from({ length: count }, (_, index) => el("td", numbers.includes(index) ? { class: "num" } : {})));

function showLinks(seen) {
  keyed($("links").tBodies[0], seen.links, (link) => `${link.pop} ${link.origin}`, cells(10, [3, 4, 5, 6, 7, 8, 9]), (row, link) => {
    const told = (value) => (value === null || value === undefined ? "–" : value);
    const values = [link.pop, link.origin, "", ms(link.rtt), told(link.streams), told(link.feeds), link.out === null ? "–" : rate(link.out), link.in === null ? "–" : rate(link.in), told(link.skipped), told(link.reconnects)];
    values.forEach((value, index) => index !== 2 && text(row.cells[index], value));
    const state = row.cells[2];
    if (!state.firstChild) state.append(icon(link.state), el("span"));
    setIcon(state.firstChild, link.state);
    text(state.lastChild, link.word);
    attr(state, "title", link.why);
    attr(row, "data-state", link.state);
  });
  attr($("links-empty"), "hidden", seen.links.length > 0);
  text($("links-empty"), "No links: no PoP and no origin is known here yet.");
}

function showProcess() {
  const { process, roles } = status;
  const most = process.fds_max > 0 ? ` of ${number(process.fds_max)}` : "";
  setFacts($("process"), [
    ["Version", process.version],
    ["Up for", duration(process.uptime_s)],
    ["CPU", `${number(100 * process.cpu_share, 1)} % of a core`],
    ["Memory", bytes(process.rss_bytes)],
    ["Descriptors", `${number(process.fds)}${most}`],
    ["Process", process.pid],
  ]);
  keyed($("roles").tBodies[0], roles, (role) => role.role, cells(4, [1, 2]), (row, role) => {
    text(row.cells[0], role.role);
    const pumped = role.kind !== "irs";
    text(row.cells[1], pumped ? number(role.connections) : "–");
    text(row.cells[2], pumped ? ms(role.lag_ms) : "–");
    if (pumped) {
      if (!row.cells[3].firstChild) row.cells[3].append(spark(`Lag of ${role.role} over the last minute`));
      setSpark(row.cells[3].firstChild, role.lag_ms_history, 20);
    }
  });
  text($("where"), roles.map((role) => role.role).join(", "));
}

function show() {
  const seen = network(status);
  showVerdict(seen);
  showTiles();
  attr($("to-network"), "hidden", !status.irs.length);
  map.show(seen);
  showList();
  showLinks(seen);
  showProcess();
  showIrs(status);
}

// --- By hand

$("all-findings").addEventListener("click", (event) => {
  attr(event.currentTarget, "aria-expanded", String(event.currentTarget.getAttribute("aria-expanded") !== "true"));
  showVerdict(network(status));
});
let filtering = 0;
$("filter").addEventListener("input", () => {
  clearTimeout(filtering);
  filtering = setTimeout(() => door.wake(), FILTER_MS);
});
$("sort").addEventListener("change", () => door.wake());
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== $("filter") && !$("status").hidden && document.activeElement?.tagName !== "INPUT") {
    event.preventDefault();
    $("filter").focus();
  }
});
for (const [state, word] of [["ok", "well"], ["warn", "look at it"], ["bad", "broken"]]) {
  $("legend").append(el("li", { "data-state": state }, icon(state), word));
}

door.open();
