// The status page: asks for /status.json once a second while someone can see it, and shows it.

import { setSpark, spark } from "./charts.js";
import { $, attr, el, icon, keyed, setIcon, text } from "./dom.js";
import { showIrs } from "./irs.js";
import { NetworkMap } from "./map.js";
import { findings, headline, line, network } from "./network.js";
import { setFacts, showStreams } from "./streams.js";
import { ago, bits, bytes, duration, ms, number, plural, rate } from "./words.js";

const POLL_MS = 1_000;
const ANSWER_MS = 5_000;
const LOST_AFTER_MS = 3_500;
const FILTER_MS = 200;
const FINDINGS_SHOWN = 2; // The room that is kept for them, so that nothing below moves.
const FINDINGS_MAX = 30;

let status = null; // The last one that came.
let cameAt = 0; // By performance.now().
let trouble = ""; // Why none comes.
let allowed = true;
let wake = () => {};
let asking = null;
const map = new NetworkMap($("map"));

// --- Asking

async function ask(path, token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  asking = new AbortController();
  const timer = setTimeout(() => asking.abort(), ANSWER_MS);
  try {
    return await fetch(path, { cache: "no-store", headers, signal: asking.signal });
  } finally {
    clearTimeout(timer);
  }
}

async function poll() {
  const query = new URLSearchParams({ sort: $("sort").value });
  const wanted = $("filter").value.trim();
  if (wanted) query.set("filter", wanted);
  try {
    const response = await ask(`/status.json?${query}`);
    if (response.status === 401) {
      showLogin(status ? "Your session has ended, or edged was restarted." : "");
      return;
    }
    if (!response.ok) throw new Error((await response.text()).trim());
    status = await response.json();
    cameAt = performance.now();
    trouble = "";
    $("login").hidden = true;
    $("status").hidden = false;
    $("logout").hidden = false;
    show();
  } catch (error) {
    trouble = error instanceof TypeError ? "no connection" : error.name === "AbortError" ? "no answer" : error.message;
  }
  showFresh();
}

async function run() {
  for (;;) {
    const began = performance.now();
    if (allowed && !document.hidden) await poll();
    const left = allowed && !document.hidden ? Math.max(50, POLL_MS - (performance.now() - began)) : 2 ** 30;
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, left);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function showFresh() {
  const ageMs = performance.now() - cameAt;
  const lost = status !== null && ageMs > LOST_AFTER_MS && !document.hidden && allowed;
  const state = !allowed ? "waiting" : status === null ? (trouble ? "lost" : "waiting") : lost ? "lost" : "live";
  attr($("fresh"), "data-state", state);
  attr(document.body, "data-lost", lost);
  const since = ago(ageMs / 1000);
  const told = !allowed ? "Signed out" : status === null ? (trouble ? `No answer from edged (${trouble})` : "Connecting") : lost ? `No answer from edged for ${since}${trouble ? ` (${trouble})` : ""}: what you see is that old` : "Live";
  text($("fresh-text"), told);
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
  map.show(seen);
  showList();
  showLinks(seen);
  showProcess();
  showIrs(status);
}

// --- Coming in and going out

function showLogin(why) {
  allowed = false;
  $("status").hidden = true;
  $("logout").hidden = true;
  $("login").hidden = false;
  if (why) text($("login-why"), why);
  $("token").focus();
  showFresh();
}

async function login(token) {
  try {
    const response = await ask("/login", token);
    if (!response.ok) return (await response.text()).trim();
  } catch {
    return "No answer from edged.";
  }
  allowed = true;
  wake();
  return "";
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wrong = await login($("token").value.trim());
  text($("login-wrong"), wrong);
  if (!wrong) $("token").value = "";
});
$("logout").addEventListener("click", async () => {
  await ask("/logout").catch(() => {});
  showLogin("You have signed out.");
});
$("all-findings").addEventListener("click", (event) => {
  attr(event.currentTarget, "aria-expanded", String(event.currentTarget.getAttribute("aria-expanded") !== "true"));
  showVerdict(network(status));
});
let filtering = 0;
$("filter").addEventListener("input", () => {
  clearTimeout(filtering);
  filtering = setTimeout(wake, FILTER_MS);
});
$("sort").addEventListener("change", () => wake());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) wake();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== $("filter") && !$("status").hidden && document.activeElement?.tagName !== "INPUT") {
    event.preventDefault();
    $("filter").focus();
  }
});
for (const [state, word] of [["ok", "well"], ["warn", "look at it"], ["bad", "broken"]]) {
  $("legend").append(el("li", { "data-state": state }, icon(state), word));
}

async function begin() {
  // A link may carry the token behind "#", which browsers send to nobody; it leaves the address bar at once.
  const fragment = location.hash.slice(1);
  if (fragment) history.replaceState(null, "", location.pathname);
  let token = "";
  try {
    token = decodeURIComponent(fragment);
  } catch {
    // No token of ours: they need no escapes.
  }
  if (token) {
    await login(token);
  }
  setInterval(showFresh, 500);
  run();
}

begin();
