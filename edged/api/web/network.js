// What the status says of the network as one picture: PoPs, origins, links between them, IRS; and
// what is wrong, in words. Pure: it touches no page.

import { ago, number, plural } from "./words.js";

const RANK = { bad: 0, warn: 1, ok: 2, idle: 3 };
export const LAG_MS_SHED = 500; // Above it new viewers are turned away.
export const LAG_MS_HIGH = 100;
const FDS_SHARE_HIGH = 0.8;
const worst = (...states) => states.reduce((one, other) => (RANK[one] <= RANK[other] ? one : other));
const originState = (state) => ({ up: "ok", probation: "ok", down: "bad" })[state] ?? "warn";

function linkSeen(pop, link) {
  const up = link.sessions.length;
  const state = up === 0 ? "bad" : up < link.sessions_wanted ? "warn" : "ok";
  return {
    pop: pop.pop, origin: link.origin, state,
    word: up === 0 ? "down" : up < link.sessions_wanted ? `${up} of ${link.sessions_wanted} sessions` : "up",
    why: link.down, rtt: link.rtt_ms, streams: link.forwardings, feeds: link.subscriptions,
    out: link.out_bps, in: link.in_bps, skipped: link.units_skipped, reconnects: link.reconnects,
  };
}

function addPops(status, pops, links) {
  for (const pop of status.pops) {
    const role = status.roles.find((one) => one.role === pop.role);
    pops.set(pop.pop, {
      name: pop.pop, here: true, publishers: pop.publishers, viewers: pop.viewers, in: pop.in_bps, out: pop.out_bps,
      table: pop.table, tableAge: pop.table_age_s, irs: pop.irs, lag: role?.lag_ms ?? 0, connected: true,
    });
    for (const link of pop.links) links.push(linkSeen(pop, link));
  }
  for (const irs of status.irs) {
    for (const seen of irs.pops) {
      const name = seen.pop.replace(/\/\d+$/, "");
      if (pops.get(name)?.here) continue;
      const streams = Object.values(seen.streams).reduce((sum, count) => sum + count, 0);
      const before = pops.get(name);
      pops.set(name, { name, here: false, publishers: (before?.publishers ?? 0) + streams, connected: seen.connected, table: seen.acked });
      for (const origin of new Set([...Object.keys(seen.streams), ...Object.keys(seen.rtt_ms)])) {
        const known = links.find((link) => link.pop === name && link.origin === origin);
        if (known) { // Another shard's.
          known.streams += seen.streams[origin] ?? 0;
          continue;
        }
        links.push({
          pop: name, origin, state: seen.connected ? "ok" : "warn", word: seen.connected ? "up" : "unknown", why: "",
          rtt: seen.rtt_ms[origin] ?? null, streams: seen.streams[origin] ?? 0, feeds: null, out: null, in: null,
        });
      }
    }
  }
  for (const origin of status.origins) {
    for (const seen of origin.pops) {
      if (pops.has(seen.pop)) continue;
      pops.set(seen.pop, { name: seen.pop, here: false, publishers: seen.streams, connected: true, table: null });
      links.push({
        pop: seen.pop, origin: origin.origin, state: seen.sessions < 4 ? "warn" : "ok", word: seen.sessions < 4 ? `${seen.sessions} of 4 sessions` : "up",
        why: "", rtt: null, streams: seen.streams, feeds: null, out: seen.in_bps, in: seen.out_bps,
      });
    }
  }
}

function addOrigin(origins, seen) {
  const known = origins.get(seen.name);
  if (known === undefined) origins.set(seen.name, { ...seen });
  else {
    if (RANK[seen.state] < RANK[known.state]) Object.assign(known, { state: seen.state, word: seen.word, why: seen.why });
    if (known.total === null) Object.assign(known, { total: seen.total, used: seen.used });
    known.blockedAt.push(...seen.blockedAt);
  }
}

function addOrigins(status, origins) {
  for (const here of status.origins) {
    addOrigin(origins, {
      name: here.origin, here: true, state: originState(here.state), word: here.state, why: "", address: "",
      total: here.slots_total, used: here.slots_used, blockedAt: [], ladders: here.ladders,
    });
  }
  for (const pop of status.pops) {
    for (const seen of pop.origins) {
      const blocked = seen.blocked !== "";
      // What says no itself is told by its own word; a link that is down, by that.
      const state = blocked ? (originState(seen.state) === "ok" ? "warn" : originState(seen.state)) : originState(seen.state);
      addOrigin(origins, {
        name: seen.origin, here: false, state, word: blocked && originState(seen.state) === "ok" ? "not reached" : seen.state,
        why: seen.blocked, address: seen.address, total: seen.slots_total, used: seen.slots_total === null ? null : seen.slots_total - seen.slots_free,
        blockedAt: blocked ? [pop.pop] : [],
      });
    }
  }
  for (const irs of status.irs) {
    for (const seen of irs.origins) {
      if (origins.has(seen.origin)) continue;
      addOrigin(origins, {
        name: seen.origin, here: false, state: originState(seen.state), word: seen.state, why: "", address: seen.address,
        total: seen.slots_total, used: seen.slots_total - seen.slots_free, blockedAt: [],
      });
    }
  }
}

function irsSeen(status, pops) {
  const role = status.irs[0];
  const clients = [...status.pops, ...status.origins];
  const lost = clients.filter((client) => !client.irs.connected);
  if (!role && !clients.length) return null;
  const state = lost.length ? (lost.length === clients.length && !role ? "bad" : "warn") : "ok";
  const word = role ? `table v${role.version}` : state === "ok" ? "connected" : "not reached";
  return { state: state === "bad" ? "warn" : state, word, pops: new Set(status.pops.map((pop) => pop.pop)), lost: new Set(lost.map((client) => client.pop ?? client.origin)) };
}

export function network(status) {
  const [pops, origins, links] = [new Map(), new Map(), []];
  addPops(status, pops, links);
  addOrigins(status, origins);
  for (const link of links) {
    if (!origins.has(link.origin)) origins.set(link.origin, { name: link.origin, state: link.state, word: link.word, why: "", total: null, used: null, blockedAt: [] });
    const origin = origins.get(link.origin);
    link.active = link.streams > 0 || link.feeds > 0;
    if (origin.state === "bad" && link.state !== "bad") Object.assign(link, { state: "bad", word: origin.word });
  }
  for (const pop of pops.values()) {
    const slow = pop.lag >= LAG_MS_SHED ? "bad" : pop.lag >= LAG_MS_HIGH ? "warn" : "ok";
    const blind = !pop.connected || (pop.here && (!pop.irs.connected || !pop.table)) ? "warn" : "ok";
    pop.state = worst(slow, blind, pop.here && !pop.table && !pop.irs.connected ? "bad" : "ok");
  }
  const order = (one, other) => RANK[one.state] - RANK[other.state];
  const byName = (one, other) => (one.name < other.name ? -1 : 1);
  return {
    pops: [...pops.values()].sort(byName), origins: [...origins.values()].sort(byName), links, irs: irsSeen(status, pops), order,
  };
}

// What is wrong, worst first: [{ state, head, rest }]; `head` alone says what, for a headline.
export function findings(status, seen) {
  const found = [];
  const say = (state, head, rest) => found.push({ state, head, rest });
  for (const origin of seen.origins) {
    const why = origin.why && origin.why !== origin.word ? ` (${origin.why.replace(/^link down: /, "")})` : "";
    const where = origin.blockedAt.length ? ` from ${origin.blockedAt.join(" and ")}` : "";
    if (origin.state === "bad") say("bad", `Origin ${origin.name} is ${origin.word}`, `${why}: its streams go on elsewhere, where there is room.`);
    else if (origin.state === "warn") say("warn", `Origin ${origin.name} is ${origin.word}`, `${why}: nothing new goes there${where}.`);
    else if (origin.total && origin.used >= origin.total) say("warn", `Origin ${origin.name} is full`, `: ${origin.used} of ${origin.total} slots are used.`);
  }
  for (const link of seen.links) {
    if (link.state === "warn" && link.word !== "unknown") say("warn", `The link ${link.pop} → ${link.origin} is incomplete`, `: ${link.word} up.`);
  }
  for (const pop of status.pops) {
    if (!pop.table) say("bad", `PoP ${pop.pop} has no routing table yet`, ": it takes no publishers.");
    if (!pop.irs.connected) say("warn", `PoP ${pop.pop} has had no IRS for ${ago(pop.irs.for_s)}`, ": it goes on routing by its table and what it hears itself.");
    if (pop.table && !seen.origins.some((origin) => origin.state === "ok")) say("bad", `PoP ${pop.pop} has no origin that takes streams`, ".");
  }
  for (const origin of status.origins) {
    const { ladders } = origin;
    if (ladders?.waiting) say("warn", `${plural(ladders.waiting, "ladder")} at ${origin.origin} ${ladders.waiting === 1 ? "waits" : "wait"} for compute`, `: ${number(ladders.used)} of ${number(ladders.total)} slots are used${ladders.preempted ? `, ${number(ladders.preempted)} went to a higher class` : ""}; viewers have the source.`);
    if (!origin.irs.connected) say("warn", `Origin ${origin.origin} has had no IRS for ${ago(origin.irs.for_s)}`, ": PoPs are not told of it.");
  }
  for (const role of status.roles) {
    const head = `The loop of ${role.role} is ${number(role.lag_ms)} ms late`;
    if (role.lag_ms >= LAG_MS_SHED) say("bad", head, ": new viewers are turned away.");
    else if (role.lag_ms >= LAG_MS_HIGH) say("warn", head, ": this host has too much to do.");
  }
  const { fds, fds_max: most } = status.process;
  if (most > 0 && fds >= FDS_SHARE_HIGH * most) say("warn", `${number(fds)} of ${number(most)} file descriptors are open`, ": raise the limit before connections are refused.");
  const warned = status.totals.warned_streams;
  if (warned) say("warn", `${plural(warned, "stream")} ${warned === 1 ? "has" : "have"} a warning for ${warned === 1 ? "its broadcaster" : "their broadcasters"}`, ", see the list below.");
  return found.sort((one, other) => RANK[one.state] - RANK[other.state]);
}

export function headline(status, seen, found) {
  const { streams, viewers } = status.totals;
  const live = streams === 0 ? "Nothing is live" : streams === 1 ? "One stream is live" : `${number(streams)} streams are live`;
  if (!found.length) {
    const parts = [[seen.pops.length, "PoP"], [seen.origins.length, "origin"]].filter(([count]) => count).map(([count, word]) => plural(count, word));
    const irs = seen.irs ? ", IRS connected" : "";
    return { state: "ok", text: "All is well", rest: `${live}${streams ? `, ${plural(viewers, "viewer")}` : ""}. ${parts.join(" and ")}${irs}.` };
  }
  const more = found.length - 1;
  return { state: found[0].state, text: more ? `${found[0].head}, and ${plural(more, "more thing")} to look at` : found[0].head, rest: "" };
}

// A finding as a line below the headline, which has said its head if it is the first.
export function line({ head, rest }, first) {
  if (!first) return `${head}${rest}`;
  const tail = rest.replace(/^ \(([^)]*)\)(.*)$/, "$2 Its link: $1.").replace(/^[\s:,.]+/, "");
  return tail.charAt(0).toUpperCase() + tail.slice(1);
}
