// The network drawn: broadcasters and viewers, PoPs, links, origins.

import { attr, icon, keyed, setIcon, svg, text } from "./dom.js";
import { LAG_MS_HIGH } from "./network.js";
import { ago, ms, number, plural, rate, shorten } from "./words.js";

const SHOWN_MAX = 5; // Per column: what is wrong first; the rest is counted.
const CARD = 86;
const GAP = 22;
const IRS_HEIGHT = 30;
const IRS_LINES_MAX = 8;
const CHARACTER = 7.4; // Of 13 px text, about.

function geometry(width) {
  const wide = width >= 1000;
  const narrow = width < 520;
  const chip = wide ? 240 : 0;
  const pop = wide ? 214 : narrow ? Math.min(152, width * 0.42) : 196;
  const origin = wide ? 214 : narrow ? Math.min(140, width * 0.38) : 190;
  const popX = wide ? chip + 56 : 1;
  return { wide, long: width >= 1150, narrow, chip, pop, origin, popX, originX: width - origin - 1, width };
}

function pick(nodes, order) {
  if (nodes.length <= SHOWN_MAX) return [nodes, []];
  const sorted = [...nodes].sort((one, other) => order(one, other) || (other.publishers ?? other.used ?? 0) - (one.publishers ?? one.used ?? 0));
  return [sorted.slice(0, SHOWN_MAX), sorted.slice(SHOWN_MAX)];
}

function place(nodes, more, height, top) {
  const count = nodes.length + (more.length ? 0.4 : 0);
  const used = count * (CARD + GAP) - GAP;
  const start = top + (height - used) / 2;
  return new Map(nodes.map((node, index) => [node.name, start + index * (CARD + GAP)]));
}

function path(from, to, bend = 0.5) {
  const middle = (to.x - from.x) * bend;
  return `M${from.x} ${from.y}C${from.x + middle} ${from.y} ${to.x - middle} ${to.y} ${to.x} ${to.y}`;
}

function along(from, to, t) {
  const s = 1 - t;
  const middle = (to.x - from.x) * 0.5;
  const mix = (a, b, c, d) => s * s * s * a + 3 * s * s * t * b + 3 * s * t * t * c + t * t * t * d;
  return { x: mix(from.x, from.x + middle, to.x - middle, to.x), y: mix(from.y, from.y, to.y, to.y) };
}

const makeText = (name) => svg("text", { class: name });
function setText(node, x, y, value) {
  attr(node, "x", x);
  attr(node, "y", y);
  text(node, value);
}

function makeCard() {
  const group = svg("g", { class: "node" });
  group.append(svg("title"), svg("rect", { class: "box", rx: 12, height: CARD }), icon("idle"), makeText("name"), makeText("word"), makeText("fact"), svg("rect", { class: "slots", rx: 2, height: 4 }), svg("rect", { class: "slots-used", rx: 2, height: 4 }));
  return group;
}

function setCard(group, x, y, width, { name, state, word, fact, title, share }) {
  const [head, box, mark, label, said, facts, slots, used] = group.children;
  attr(group, "data-state", state);
  attr(group, "transform", `translate(${x} ${y})`);
  attr(box, "width", width);
  setIcon(mark, state);
  for (const [key, value] of Object.entries({ x: 12, y: 11, width: 18, height: 18 })) attr(mark, key, value);
  text(head, title);
  const letters = Math.floor((width - 44) / CHARACTER);
  setText(label, 37, 25, shorten(name, letters));
  setText(said, 12, 48, shorten(word, Math.floor((width - 20) / 6.6)));
  setText(facts, 12, 67, shorten(fact, Math.floor((width - 20) / 6.2)));
  attr(slots, "width", share === null ? 0 : width - 24);
  attr(used, "width", share === null ? 0 : Math.max(share > 0 ? 3 : 0, (width - 24) * Math.min(1, share)));
  for (const bar of [slots, used]) {
    attr(bar, "x", 12);
    attr(bar, "y", CARD - 11);
  }
}

function popCard(pop, narrow) {
  const lag = pop.here ? `lag ${ms(pop.lag)}` : "on another host";
  const blind = pop.here && !pop.irs.connected;
  const table = pop.table ? `table v${pop.table[1]}` : "no table yet";
  const slow = pop.here && pop.lag >= LAG_MS_HIGH ? `${number(pop.lag)} ms late` : table;
  const word = !pop.connected ? "not connected" : blind ? (narrow ? "no IRS" : `no IRS for ${ago(pop.irs.for_s)}`) : slow;
  const people = pop.here ? `${number(pop.publishers)} live, ${plural(pop.viewers, "viewer")}` : `${number(pop.publishers)} live`;
  return { name: pop.name, state: pop.state, word: `PoP · ${word}`, fact: narrow ? people : pop.here ? `${lag}${pop.tableAge === null ? "" : ` · table ${ago(pop.tableAge)} old`}` : `${people}, ${lag}`, title: `PoP ${pop.name}: ${word}, ${people}, ${lag}`, share: null };
}

function originCard(origin, narrow) {
  const slots = origin.total === null ? "slots unknown" : `${number(origin.used)} of ${number(origin.total)}${narrow ? "" : " slots used"}`;
  const { ladders } = origin;
  const made = ladders ? `, ${plural(ladders.made, "ladder")} by ${number(ladders.used)} of ${number(ladders.total)} slots of compute (${ladders.text})` : "";
  return { name: origin.name, state: origin.state, word: `Origin · ${origin.word}`, fact: ladders && !narrow ? `${slots} · ${plural(ladders.made, "ladder")}` : slots, title: `Origin ${origin.name}: ${origin.word}${origin.why ? `, ${origin.why}` : ""}, ${slots}${made}${origin.address ? `, ${origin.address}` : ""}`, share: origin.total ? origin.used / origin.total : null };
}

function makeLink() {
  return svg("g", { class: "link" }, svg("title"), svg("path", { class: "wire" }), svg("path", { class: "flow" }), svg("rect", { class: "plate", rx: 9, height: 20 }), makeText("label"));
}

function linkWords(link, form) {
  if (link.state === "bad") return form.narrow ? "✕" : `✕ ${link.word}`;
  const rtt = link.rtt === null || link.rtt === undefined ? "" : ms(link.rtt);
  if (form.narrow) return rtt;
  const parts = [];
  if (link.state === "warn") parts.push(`▲ ${link.word}`);
  if (link.streams) parts.push(form.long ? plural(link.streams, "stream") : `${link.streams}↑`);
  if (link.feeds) parts.push(form.long ? plural(link.feeds, "feed") : `${link.feeds}↓`);
  if (link.active && link.out !== null) parts.push(rate(link.out + link.in));
  if (rtt) parts.push(rtt);
  return parts.join(" · ");
}

function setLink(group, link, form, from, to) {
  const [head, wire, flow, plate, label] = group.children;
  attr(group, "data-state", link.state);
  attr(group, "data-active", link.active);
  const d = path(from, to);
  attr(wire, "d", d);
  attr(flow, "d", d);
  const width = 1.5 + Math.min(4.5, Math.log2(1 + ((link.out ?? 0) + (link.in ?? 0)) / 1e6));
  attr(wire, "stroke-width", width.toFixed(1));
  const words = linkWords(link, form);
  const at = along(from, to, form.narrow ? 0.5 : 0.3);
  const wide = words.length * 6.5 + 16;
  setText(label, at.x.toFixed(1), (at.y + 4).toFixed(1), words);
  for (const [key, value] of Object.entries({ x: (at.x - wide / 2).toFixed(1), y: (at.y - 10).toFixed(1), width: words ? wide : 0 })) attr(plate, key, value);
  text(head, `${link.pop} to ${link.origin}: ${link.word}${link.why ? `, ${link.why}` : ""}`);
}

function makeChip() {
  return svg("g", { class: "chip" }, svg("path", { class: "wire" }), svg("path", { class: "arrow" }), svg("rect", { class: "box", rx: 16, height: 32 }), makeText("name"), makeText("fact"));
}

function setChip(group, chip, form, y) {
  const [wire, arrow, box, name, fact] = group.children;
  attr(group, "data-active", chip.count > 0);
  const [end, start] = [form.popX, form.chip];
  attr(wire, "d", `M${start} ${y + 16}H${end}`);
  attr(wire, "stroke-width", (1.5 + Math.min(4.5, Math.log2(1 + chip.bps / 1e6))).toFixed(1));
  const tip = chip.inward ? end - 4 : start + 4;
  attr(arrow, "d", chip.inward ? `M${tip - 8} ${y + 10}L${tip} ${y + 16}L${tip - 8} ${y + 22}` : `M${tip + 8} ${y + 10}L${tip} ${y + 16}L${tip + 8} ${y + 22}`);
  attr(box, "y", y);
  attr(box, "width", form.chip);
  setText(name, 14, y + 21, plural(chip.count, chip.word));
  setText(fact, form.chip - 14, y + 21, chip.count ? rate(chip.bps) : "");
}

export class NetworkMap {
  constructor(parent) {
    this.parent = parent;
    this.layers = Object.fromEntries(["irs", "wires", "chips", "nodes", "rest"].map((name) => [name, svg("g", { class: name })]));
    this.root = svg("svg", { class: "network", role: "img" }, ...Object.values(this.layers));
    parent.append(this.root);
    this.seen = null;
    new ResizeObserver(() => this.draw()).observe(parent);
  }

  show(seen) {
    this.seen = seen;
    this.draw();
  }

  draw() {
    const width = Math.floor(this.parent.clientWidth);
    if (this.seen === null || width < 100) return;
    const form = geometry(width);
    const { seen, layers } = this;
    const [pops, morePops] = pick(seen.pops, seen.order);
    const [origins, moreOrigins] = pick(seen.origins, seen.order);
    const top = seen.irs ? IRS_HEIGHT + 14 : 4;
    const rows = Math.max(1, pops.length + (morePops.length ? 0.4 : 0), origins.length + (moreOrigins.length ? 0.4 : 0));
    const body = rows * (CARD + GAP) - GAP;
    const popY = place(pops, morePops, body, top);
    const originY = place(origins, moreOrigins, body, top);
    attr(this.root, "viewBox", `0 0 ${width} ${top + body + 4}`);
    attr(this.root, "width", width);
    attr(this.root, "height", top + body + 4);
    attr(this.root, "aria-label", describe(seen));

    const links = seen.links.filter((link) => popY.has(link.pop) && originY.has(link.origin));
    keyed(layers.wires, links, (link) => `${link.pop} ${link.origin}`, makeLink, (group, link) => {
      const from = { x: form.popX + form.pop, y: popY.get(link.pop) + CARD / 2 };
      setLink(group, link, form, from, { x: form.originX, y: originY.get(link.origin) + CARD / 2 });
    });
    const chips = form.wide ? pops.filter((pop) => pop.here).flatMap((pop) => [
      { key: `in ${pop.name}`, pop, inward: true, count: pop.publishers, word: "broadcaster", bps: pop.in, lower: 0 },
      { key: `out ${pop.name}`, pop, inward: false, count: pop.viewers, word: "viewer", bps: pop.out, lower: 46 },
    ]) : [];
    keyed(layers.chips, chips, (chip) => chip.key, makeChip, (group, chip) => setChip(group, chip, form, popY.get(chip.pop.name) + 4 + chip.lower));
    const nodes = [
      ...pops.map((pop) => ({ key: `pop ${pop.name}`, x: form.popX, y: popY.get(pop.name), width: form.pop, card: popCard(pop, form.narrow) })),
      ...origins.map((origin) => ({ key: `origin ${origin.name}`, x: form.originX, y: originY.get(origin.name), width: form.origin, card: originCard(origin, form.narrow) })),
    ];
    keyed(layers.nodes, nodes, (node) => node.key, makeCard, (group, node) => setCard(group, node.x, node.y, node.width, node.card));
    this.drawIrs(form, popY, originY);
    this.drawRest(form, [morePops, "PoP", form.popX + form.pop / 2], [moreOrigins, "origin", form.originX + form.origin / 2], top + body);
  }

  drawIrs(form, popY, originY) {
    const { irs } = this.seen;
    const middle = (form.popX + form.pop + form.originX) / 2;
    const word = irs === null ? "" : form.narrow ? "IRS" : `IRS · ${irs.word}`;
    const wide = word.length * 7 + 50;
    keyed(this.layers.irs, irs === null ? [] : [irs], () => "irs", () => svg("g", { class: "node pill" }, svg("g", { class: "dashes" }), svg("rect", { class: "box", rx: 15, height: IRS_HEIGHT }), icon("idle"), makeText("name")), (group) => {
      const [dashes, box, mark, name] = group.children;
      attr(group, "data-state", irs.state);
      for (const [key, value] of Object.entries({ x: middle - wide / 2, y: 1, width: wide })) attr(box, key, value);
      setIcon(mark, irs.state);
      for (const [key, value] of Object.entries({ x: middle - wide / 2 + 10, y: 7, width: 18, height: 18 })) attr(mark, key, value);
      setText(name, middle - wide / 2 + 35, 21, word);
      const ends = form.narrow || popY.size + originY.size > IRS_LINES_MAX ? [] : [
        ...[...popY].map(([pop, y]) => ({ name: pop, x: form.popX + form.pop, y: y + 16, side: -1 })),
        ...[...originY].map(([origin, y]) => ({ name: origin, x: form.originX, y: y + 16, side: 1 })),
      ];
      keyed(dashes, ends, (end) => `${end.side} ${end.name}`, () => svg("path", { class: "dash" }), (line, end) => {
        const start = middle + (end.side * wide) / 2;
        attr(line, "data-state", irs.lost.has(end.name) ? "warn" : "ok");
        attr(line, "d", `M${start} 16C${start + end.side * 30} 16 ${end.x - end.side * 40} ${end.y} ${end.x} ${end.y}`);
      });
    });
  }

  drawRest(form, ...rest) {
    const bottom = rest.pop();
    const shown = rest.filter(([nodes]) => nodes.length);
    keyed(this.layers.rest, shown, ([, word]) => word, () => makeText("fact"), (node, [nodes, word, x]) => {
      const bad = nodes.filter((one) => one.state !== "ok").length;
      setText(node, x, bottom - 6, `and ${plural(nodes.length, `more ${word}`)}${bad ? `, ${bad} not well` : ", all well"}`);
      attr(node, "text-anchor", "middle");
    });
  }
}

function describe(seen) {
  const count = (nodes) => nodes.filter((node) => node.state !== "ok").length;
  return `Network: ${plural(seen.pops.length, "PoP")}, ${count(seen.pops)} not well; ${plural(seen.origins.length, "origin")}, ${count(seen.origins)} not well; ${plural(seen.links.length, "link")}, listed below as a table.`;
}
