// What happened, in sentences, the same of several PoPs in one. Pure: it touches no page.

import { number, plural } from "./words.js";

const NAMES_MAX = 3;
const RANK = { bad: 0, warn: 1, ok: 2, idle: 3 };

const list = (names, of = "") => (names.length <= NAMES_MAX ? names.join(", ").replace(/, ([^,]*)$/, " and $1") : `${names.slice(0, NAMES_MAX - 1).join(", ")} and ${names.length - NAMES_MAX + 1} more${of ? ` ${of}` : ""}`);

// Why streams moved, as IRS and PoPs say it in short: what they have in common, and a sentence.
function because(event) {
  const { before = "", why = "", origin } = event;
  const link = why.match(/^link (.*)$/);
  if (before === "drain" || why === "drain") return { group: `drain ${origin}`, away: `left ${origin}`, rest: "it drains" };
  if (link) return { group: why, away: "moved", rest: `the link ${link[1]} has too much to carry` };
  if (why === "nearer") return { group: why, away: "moved", rest: "another origin is nearer, and has room" };
  if (why.startsWith("makes room")) return { group: why, away: "moved", rest: "that makes room for others" };
  if (before && before !== "migrate") return { group: `lost ${origin} ${before}`, away: `left ${origin}`, rest: `it failed: ${before}` };
  return { group: why, away: "moved", rest: why || "IRS wanted it so" };
}

const COUNTED = ["moved", "kept", "shed"]; // Of streams: the same of several PoPs is one line.
const streams = (count) => plural(count, "stream");
const KINDS = {
  moved: (event) => ({ state: ["drain", "migrate"].includes(event.before) ? "ok" : "warn", head: `${streams(event.count)} ${because(event).away}`, rest: because(event).rest }),
  wanted: (event) => ({ state: "idle", head: `${streams(event.count)} asked to move to ${event.to}`, rest: because(event).rest }),
  kept: (event) => ({ state: "warn", head: `${streams(event.count)} stayed at ${event.origin}${event.to ? `, not moved to ${event.to}` : ""}`, rest: event.why ?? "" }),
  shed: (event) => ({ state: "bad", head: `${streams(event.count)} of ${event.origin} shed`, rest: `the link ${event.link} is full, and ${event.why} goes first` }),
  full: (event) => ({ state: event.after === "begun" ? "bad" : "ok", head: event.after === "begun" ? `Link ${event.link} has no room for ${event.why}` : `Link ${event.link} has room for all classes again`, rest: event.after === "begun" ? "new ones cross it as others leave" : "" }),
  origin: (event) => ({ state: { down: "bad", suspect: "warn", drain: "warn" }[event.after] ?? "ok", head: `Origin ${event.origin} ${{ up: event.before ? "is up again" : "is there", down: "is down", suspect: "is suspect", probation: "is back, on probation", drain: "drains" }[event.after] ?? `is ${event.after}`}`, rest: event.why ?? "" }),
  link: (event) => ({ state: { cut: "bad", closed: "warn", filling: "warn" }[event.after] ?? "ok", head: `Link ${event.link} ${{ cut: "is cut", closed: "is closed", up: event.before === "unknown" ? "is up" : "is up again", filling: `is filling: ${event.count} % used`, eased: "has room again", unknown: "is not told of any more" }[event.after] ?? event.after}`, rest: event.why ?? "" }),
  drain: (event) => ({ state: event.after === "begun" ? "warn" : "ok", head: event.after === "begun" ? `Drain of ${event.origin} begins` : `Drain of ${event.origin} is over`, rest: event.why ? `asked by ${event.why}` : "" }),
  limit: (event) => ({ state: event.after === "begun" ? "warn" : "ok", head: event.after === "begun" ? `${event.link || event.origin}: ${event.count ? `${event.count} % may be used` : "not to be used"}` : `${event.link || event.origin} may be used again`, rest: `${event.why ?? ""} (${event.before})` }),
  pop: (event) => ({ state: event.after === "gone" ? "bad" : "ok", head: event.after === "gone" ? `PoP ${event.pop} is not connected` : `PoP ${event.pop} is here`, rest: "" }),
  irs: (event) => ({ state: event.after === "standby" || event.after === "campaign" ? "warn" : "ok", head: `IRS is ${{ alone: "alone", active: "the active one", standby: "standing by", campaign: "asking PoPs for an epoch" }[event.after] ?? event.after}`, rest: `epoch ${event.count}` }),
  plans: (event) => ({ state: event.after === "without" ? "warn" : "ok", head: event.after === "without" ? "Plans are made without the solver" : "The solver makes plans again", rest: event.why ?? "" }),
  room: (event) => ({ state: event.after === "lacking" ? "bad" : "ok", head: event.after === "lacking" ? `No room anywhere for ${plural(event.count, "unit")}` : "There is room for all again", rest: "" }),
  more: (event) => ({ state: "idle", head: `And ${number(event.count)} more of which no note was kept`, rest: "" }),
};

export function told(event) {
  const say = KINDS[event.kind];
  return say ? say(event) : { state: "idle", head: event.kind, rest: "" };
}

// Whether a mark on the timeline is of use: moves have bars of their own.
export const isMark = (event) => !["moved", "wanted", "kept", "more"].includes(event.kind);

// Lines for the list, newest first: moves for the same reason within `within_s` are one.
export function lines(events, { within_s: within = 30, most = 60, about = null } = {}) {
  const found = [];
  const open = new Map();
  for (let index = events.length - 1; index >= 0 && found.length <= most; index--) {
    const event = events[index];
    if (event.kind === "wanted" || (about && !concerns(event, about))) continue;
    const counted = COUNTED.includes(event.kind);
    const key = event.kind === "moved" ? because(event).group : [event.origin, event.to, event.link, event.why].join("\n");
    const known = counted ? open.get(`${event.kind} ${key}`) : undefined;
    const line = known && known.until - event.at <= within ? known : { key: `${event.index} ${index} ${event.kind}`, until: event.at, event: { ...event, count: 0 }, ways: new Map(), pops: new Set(), channels: new Set() };
    if (line !== known) {
      found.push(line);
      if (counted) open.set(`${event.kind} ${key}`, line);
    }
    line.event.count += event.count;
    if (event.pop) line.pops.add(event.pop);
    const way = `${event.origin} → ${event.to}`;
    if (event.kind === "moved") line.ways.set(way, (line.ways.get(way) ?? 0) + event.count);
    for (const channel of event.channels ?? []) line.channels.add(channel);
  }
  return found.slice(0, most).map((line) => ({ key: line.key, until: line.until, ...told(line.event), where: where(line), subject: subjectOf(line.event) }));
}

// Which ways they went, of which PoPs; of a single stream, its channel.
function where({ event, ways, pops, channels }) {
  if (!COUNTED.includes(event.kind)) return "";
  const counts = [...ways].sort(([, one], [, other]) => other - one);
  const shown = counts.length === 1 ? counts.map(([way]) => way) : counts.map(([way, count]) => `${way} ${number(count)}`);
  const which = event.count === 1 && channels.size === 1 ? [...channels][0] : "";
  const at = pops.size ? `at ${list([...pops].sort())}` : "";
  return [which, list(shown, "ways"), at].filter(Boolean).join(" · ");
}

export function subjectOf(event) {
  if (event.kind === "moved" || event.kind === "kept") return `origin ${event.to || event.origin}`;
  if (event.link) return `link ${event.link}`;
  if (event.origin) return `origin ${event.origin}`;
  return event.pop ? `pop ${event.pop}` : "";
}

export const concerns = (event, key) => [event.pop && `pop ${event.pop}`, event.origin && `origin ${event.origin}`, event.to && `origin ${event.to}`, event.link && `link ${event.link}`].includes(key);

// What stands at the top: the network at one moment in a sentence.
export function verdict(seen) {
  const named = (word, nodes) => `${word}${nodes.length === 1 ? "" : "s"} ${list(nodes.map((node) => node.name))}`;
  const is = (nodes) => (nodes.length === 1 ? "is" : "are");
  const found = [];
  const say = (state, nodes, word, rest) => nodes.length && found.push({ state, text: `${named(word, nodes)} ${is(nodes)} ${rest}` });
  say("bad", seen.origins.filter((each) => each.health === "bad"), "Origin", "down");
  say("bad", seen.links.filter((each) => each.state === "cut"), "Link", "cut");
  say("bad", seen.pops.filter((each) => !each.connected), "PoP", "not connected");
  if (seen.irs.unserved) found.push({ state: "bad", text: `No room anywhere for ${plural(seen.irs.unserved, "unit")}` });
  say("warn", seen.origins.filter((each) => each.state === "drain"), "Origin", "drained");
  say("warn", seen.origins.filter((each) => each.state === "suspect"), "Origin", "suspect");
  say("warn", seen.origins.filter((each) => each.state === "probation"), "Origin", "on probation");
  say("warn", seen.links.filter((each) => each.state === "up" && each.price_ms > 0), "Link", "filling");
  say("warn", seen.links.filter((each) => each.state === "closed"), "Link", "closed");
  if (seen.totals.refused) found.push({ state: "warn", text: `${plural(seen.totals.refused, "stream")} found no place` });
  if (seen.irs.fallback) found.push({ state: "warn", text: "Plans are made without the solver" });
  found.sort((one, other) => RANK[one.state] - RANK[other.state]);
  if (!found.length) return { state: "ok", text: "All is well", rest: "" };
  return { state: found[0].state, text: found[0].text, rest: found.slice(1).map((one) => one.text).join(" · ") };
}
