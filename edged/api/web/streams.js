// The list of live streams: one row each, which opens to the route it took and why.

import { setSpark, spark } from "./charts.js";
import { attr, el, icon, keyed, setIcon, svg, text } from "./dom.js";
import { ago, bits, duration, ms, number, picture, plural, rate, sound } from "./words.js";

const opened = new Set(); // Channels, by the hand of who looks.
let nextId = 0;

const WORDS = { live: "live", silent: "silent", waiting: "waiting for its broadcaster", elsewhere: "published elsewhere" };
const FPS_SHARE_LOW = 0.8;
const GOP_S_LONG = 4.5;

export function rowState(stream) {
  if (stream.health.warnings.some((warning) => warning.severity === "error") || stream.state === "silent") return "bad";
  if (stream.state === "waiting" || stream.health.warnings.some((warning) => warning.severity === "warning")) return "warn";
  return stream.state === "elsewhere" ? "idle" : "ok";
}

// Viewers have less than the configuration would give them.
const lacks = (ladder) => !!ladder && (["waits", "preempted", "failed"].includes(ladder.state) || ladder.shed.length > 0);
const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;

const cell = (name, ...children) => el("span", { class: `cell ${name}` }, ...children);

function makeRow() {
  const id = `more-${nextId++}`;
  const button = el("button", { type: "button", class: "row", "aria-expanded": "false", "aria-controls": id },
    cell("state", icon("idle"), el("span", { class: "hidden" })),
    cell("who", el("b"), el("span", { class: "dim title" })),
    cell("picture"),
    cell("bitrate num", spark("Bitrate over the last minute"), el("output"), el("small")),
    cell("fps num", el("output"), el("small")),
    cell("gop num", el("output"), el("small")),
    cell("viewers num", spark("Viewers over the last minute"), el("output"), el("small")),
    cell("route"),
    cell("since num"),
    cell("chevron", svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: "m7 9.5 5 5 5-5" }))),
    el("span", { class: "first-warning", hidden: true }),
  );
  const more = el("div", { class: "more-of-it", id, hidden: true });
  const item = el("li", {}, button, more);
  button.addEventListener("click", () => {
    const { channel } = item.stream;
    if (!opened.delete(channel)) opened.add(channel);
    setRow(item, item.stream);
  });
  return item;
}

function setRow(item, stream) {
  item.stream = stream;
  const [button, more] = item.children;
  const [state, who, pictured, bitrate, fps, gop, viewers, route, since, , first] = button.children;
  const rank = rowState(stream);
  const { health } = stream;
  attr(item, "data-state", rank);
  attr(item, "data-channel", stream.channel);
  setIcon(state.firstChild, rank);
  text(state.lastChild, rank === "ok" ? WORDS[stream.state] : `${WORDS[stream.state]}, ${plural(health.warnings.length, "warning")}`);
  text(who.firstChild, stream.channel);
  text(who.lastChild, stream.title || (stream.state === "elsewhere" ? stream.came_from : ""));
  attr(who, "title", stream.title ? `${stream.channel}: ${stream.title}` : stream.channel);
  text(pictured, picture(stream, { rate: false }));
  const known = stream.state !== "elsewhere";
  const [speed, unit] = known ? bits(health.bitrate_bps_2s) : ["", ""];
  setSpark(bitrate.children[0], stream.bitrate_kbps_history, 100);
  text(bitrate.children[1], speed);
  text(bitrate.children[2], unit);
  const wanted = stream.tracks.find((track) => track.kind === "video")?.fps ?? null;
  text(fps.children[0], health.fps === null ? "–" : number(health.fps, 1));
  text(fps.children[1], "fps");
  attr(fps, "data-state", wanted && health.fps !== null && health.fps < FPS_SHARE_LOW * wanted ? "warn" : null);
  text(gop.children[0], health.gop_s === null ? "–" : number(health.gop_s, 1));
  text(gop.children[1], "s");
  attr(gop, "data-state", health.gop_s !== null && health.gop_s > GOP_S_LONG ? "warn" : null);
  setSpark(viewers.children[0], stream.viewers_history, 4);
  text(viewers.children[1], number(stream.viewers));
  text(viewers.children[2], stream.viewers === 1 ? "viewer" : "viewers");
  const from = stream.route?.pop ?? "";
  text(route, stream.origin ? `${from ? `${from} → ` : ""}${stream.origin}` : "nowhere");
  attr(route, "title", stream.route?.why ?? "");
  text(since, duration(stream.live_s));
  const told = stream.state === "waiting" ? `Its broadcaster is lost; the stream has waited for ${ago(stream.waiting_s ?? 0)} and goes on when the broadcaster is back.` : health.warnings[0]?.text ?? (lacks(stream.ladder) ? sentence(stream.ladder.text) : "");
  attr(first, "hidden", !told);
  attr(first, "data-state", told && rank === "ok" ? "warn" : null);
  text(first, told);
  const open = opened.has(stream.channel);
  attr(button, "aria-expanded", String(open));
  attr(more, "hidden", !open);
  if (open) setMore(more, stream);
}

function facts(stream) {
  const { health, route } = stream;
  const found = [
    ["Publisher", stream.came_from || "–"],
    ["Encoder", stream.encoder || "not told"],
    ["Picture", `${picture(stream) || "none"}${stream.tracks[0]?.codec_string ? ` (${stream.tracks.map((track) => track.codec_string).join(", ")})` : ""}`],
    ["Sound", sound(stream)],
    ["Bitrate, 2 s and 60 s", `${rate(health.bitrate_bps_2s)}, ${rate(health.bitrate_bps_60s)}`],
    ["Frame rate, measured and announced", `${health.fps === null ? "–" : number(health.fps, 1)}, ${stream.tracks.find((track) => track.kind === "video")?.fps ?? "not told"}`],
    ["Keyframe interval", health.gop_s === null ? "not known yet" : `${number(health.gop_s, 2)} s`],
  ];
  const { ladder } = stream;
  if (ladder) found.push(["Ladder", `${ladder.text.replace(/^ladder:? /, "")}${ladder.rungs.length ? ` (${plural(ladder.slots, "slot")}${ladder.restarts ? `, begun anew ${plural(ladder.restarts, "time")}` : ""})` : ""}`]);
  if (health.jitter_ms !== null) found.push(["Jitter", ms(health.jitter_ms)]);
  if (health.av_skew_ms !== null) found.push(["Sound ahead of picture", ms(health.av_skew_ms)]);
  if (health.jumps !== null) found.push(["Timestamp jumps", number(health.jumps)]);
  found.push(["Ring", `${number(stream.ring_s, 1)} s, ${number(stream.ring_bytes / 2 ** 20, 1)} MiB${stream.gapless ? "" : ": shorter than a GOP, so moving the stream would leave a gap"}`]);
  const at = Object.entries(stream.viewers_at).map(([pop, count]) => `${pop.replace(/^pop /, "")} ${number(count)}`);
  found.push(["Viewers", at.length ? at.join(", ") : "none"]);
  if (route) found.push(["Forwarding", `${route.state}${route.accepted ? ", accepted" : ""}, ${number(route.lag_units)} units behind, ${number(route.units_skipped)} skipped`]);
  found.push(["Run", `${stream.publication}, home epoch ${stream.home_epoch}, class ${stream.priority}`]);
  if (stream.latency) found.push(["Latency", stream.latency]);
  return found;
}

function setMore(more, stream) {
  if (!more.childElementCount) {
    more.append(
      el("ul", { class: "warnings" }),
      el("div", { class: "why" }, el("h3"), el("p"), el("ul")),
      el("dl", { class: "facts" }),
    );
  }
  const [warnings, why, list] = more.children;
  keyed(warnings, stream.health.warnings, (warning) => warning.code, () => el("li", {}, icon("warn"), el("p")), (node, warning) => {
    attr(node, "data-state", warning.severity === "error" ? "bad" : warning.severity === "info" ? "idle" : "warn");
    setIcon(node.firstChild, node.dataset.state);
    text(node.lastChild, warning.text);
  });
  attr(warnings, "hidden", !stream.health.warnings.length);
  const { route } = stream;
  text(why.children[0], route ? `Why ${route.origin}?` : `At ${stream.origin || "no origin"}`);
  text(why.children[1], route ? `${route.why}. Decided ${duration(route.for_s)} ago, by table v${route.table_version}; it is at ${route.address}.` : "This process did not place it.");
  keyed(why.children[2], route ? Object.entries(route.passed) : [], ([origin]) => origin, () => el("li", {}, el("b"), el("span")), (node, [origin, reason]) => {
    text(node.firstChild, origin);
    text(node.lastChild, ` was passed over: ${reason}`);
  });
  setFacts(list, facts(stream));
}

export function setFacts(list, pairs) {
  keyed(list, pairs, ([name]) => name, ([name]) => el("div", {}, el("dt", {}, name), el("dd")), (node, [, value]) => text(node.lastChild, value));
}

export function showStreams(parent, streams) {
  keyed(parent, streams, (stream) => stream.channel, makeRow, setRow);
}
