// The network drawn: land, links by their load, flows by their units, PoPs and origins by load and
// health; zoomed, hovered, selected.

import { attr, badge, keyed, setBadge, svg, text } from "./dom.js";
import { LAND } from "./land.js";
import { arrange, boxAround, curve, fit, isFree, label, loadStep, project, spread, TURN, wrapped } from "./layout.js";
import { ms, number, plural, rate } from "./words.js";

const FLOWS_SHOWN = 150; // The strongest; of what is selected, all.
const FLOWS_MOVING = 40; // Of them so many are seen to move: each costs the browser's time.
const LINK_BEND = 0.06;
const FLOW_BEND = 0.16;
const RELAYS_SHOWN = 80; // Those of most channels.
const RELAY_BEND = -0.14; // To the other side than flows.
const TAG_PX = 18;
const TAGS_AT = [[0.5, 0], [0.36, 0], [0.64, 0], [0.24, 0], [0.76, 0], [0.5, -22], [0.5, 22], [0.3, -22], [0.7, -22]]; // Along a link, and off it.
const ZOOM_MAX = 40; // Times the view that has all.
const CLICK_PX = 5;
const CHARACTER = 6.6;
const NARROW = 620;

const fixed = (value) => value.toFixed(1);

export class Scene {
  constructor(parent, tip, onSelect) {
    Object.assign(this, { parent, tip, onSelect, seen: null, selected: "", links: true, flows: true, relays: true });
    this.zoom = { k: 1, x: 0, y: 0 }; // On top of the view that has all.
    this.layers = Object.fromEntries(["land", "ties", "streams", "relays", "marks", "spots", "labels"].map((name) => [name, svg("g", { class: name })]));
    this.root = svg("svg", { class: "world", tabindex: 0, role: "application", "aria-roledescription": "map" }, ...Object.values(this.layers));
    parent.prepend(this.root);
    this.drawLand();
    this.size = { width: 0, height: 0 };
    new ResizeObserver(() => {
      this.size = { width: Math.floor(parent.clientWidth), height: Math.floor(parent.clientHeight) };
      this.draw();
    }).observe(parent);
    this.listen();
  }

  show(seen) {
    this.seen = seen;
    this.draw();
  }

  select(key) {
    this.selected = key;
    this.draw();
  }

  // --- Layout

  layout() {
    const { seen, zoom } = this;
    const { width, height } = this.size;
    const names = JSON.stringify([seen.sites, seen.pops.map((pop) => [pop.name, pop.site]), seen.origins.map((origin) => [origin.name, origin.site])]);
    if (this.names !== names) {
      this.names = names;
      this.arranged = arrange(seen);
      this.zoom = { k: 1, x: 0, y: 0 };
      this.placed = null;
    }
    const signature = [width, height, this.zoom.k, this.zoom.x, this.zoom.y].join();
    if (this.placed?.signature === signature) return this.placed;
    const narrow = width < NARROW;
    const points = [...this.arranged.places.values()];
    const margin = narrow ? { top: 22, bottom: 22, side: 22 } : { top: 44, bottom: 40, side: 76 };
    const whole = fit(points, width, height, margin);
    const view = { k: whole.k * zoom.k, x: whole.x * zoom.k + this.zoom.x, y: whole.y * zoom.k + this.zoom.y };
    const scale = Math.max(0.5, Math.min(1.15, width / 950)) * Math.min(1.6, this.zoom.k ** 0.3);
    const most = { slots: Math.max(1, ...seen.origins.map((origin) => origin.slots)), streams: Math.max(1, ...seen.pops.map((pop) => pop.streams)) };
    const circles = [
      ...seen.origins.map((origin) => ({ node: origin, heavy: true, r: this.originRadius(origin, most.slots, scale) })),
      ...seen.pops.map((pop) => ({ node: pop, heavy: false, r: this.popRadius(pop, most.streams, scale) })),
    ].map((circle) => {
      const place = this.arranged.places.get(circle.node.key);
      return { ...circle, x: view.k * place.x + view.x, y: view.k * place.y + view.y };
    });
    const at = spread(circles);
    const spots = new Map(circles.map(({ node, r }, index) => [node.key, { x: at[index].x, y: at[index].y, r }]));
    this.placed = { signature, view, spots, scale, most, narrow, width, height };
    return this.placed;
  }

  originRadius(origin, most, scale) {
    return scale * (11 + 10 * Math.sqrt(origin.slots / most));
  }

  popRadius(pop, most, scale) {
    return scale * (3 + 6 * Math.sqrt(Math.min(1, pop.streams / most)));
  }

  // --- Drawing

  drawLand() {
    const outlines = LAND.map((outline) => `M${outline.map(([longitude, latitude]) => { const { x, y } = project(latitude, longitude); return `${x.toFixed(4)} ${y.toFixed(4)}`; }).join("L")}Z`).join("");
    for (const turn of [-TURN, 0, TURN]) this.layers.land.append(svg("path", { d: outlines, transform: `translate(${turn} 0)` }));
  }

  draw() {
    const { width, height } = this.size;
    if (this.seen === null || width < 50 || height < 50) return;
    const placed = this.layout();
    attr(this.root, "viewBox", `0 0 ${width} ${height}`);
    attr(this.root, "data-picked", this.selected !== "");
    attr(this.root, "aria-label", describe(this.seen));
    attr(this.layers.land, "transform", `translate(${placed.view.x} ${placed.view.y}) scale(${placed.view.k})`);
    attr(this.layers.land, "display", this.arranged.mode === "map" ? null : "none");
    const related = this.related();
    this.drawLinks(placed, related);
    this.drawFlows(placed);
    this.drawRelays(placed);
    this.drawNodes(placed, related);
    this.drawLabels(placed, related);
  }

  // What has to do with what is selected: the rest stands back.
  related() {
    const { seen, selected } = this;
    if (!selected) return null;
    const found = new Set([selected]);
    for (const flow of seen.flows) {
      if (selected === `pop ${flow.pop}`) found.add(`origin ${flow.origin}`);
      if (selected === `origin ${flow.origin}`) found.add(`pop ${flow.pop}`);
    }
    for (const { from, to } of seen.relays) {
      if (selected === `pop ${from}`) found.add(`pop ${to}`);
      if (selected === `pop ${to}`) found.add(`pop ${from}`);
    }
    const link = seen.links.find((each) => each.key === selected);
    if (link) for (const node of [...seen.pops, ...seen.origins]) if (node.site === link.one || node.site === link.other) found.add(node.key);
    return found;
  }

  drawLinks({ view, scale, narrow }, related) {
    const { seen, arranged } = this;
    const shown = this.links ? seen.links.filter((link) => arranged.sites[link.one] && arranged.sites[link.other]) : [];
    const widest = Math.max(1, ...shown.map((link) => link.mbps));
    const make = () => svg("g", { class: "tie" }, svg("path", { class: "hit" }), svg("path", { class: "line" }));
    const tagged = [];
    keyed(this.layers.ties, shown, (link) => link.key, make, (group, link) => {
      const seenAt = (place) => ({ x: view.k * place.x + view.x, y: view.k * place.y + view.y });
      const ways = arranged.mode === "map" ? wrapped(arranged.sites[link.one], arranged.sites[link.other]) : [[arranged.sites[link.one], arranged.sites[link.other]]];
      const curves = ways.map(([from, to]) => curve(seenAt(from), seenAt(to), LINK_BEND));
      for (const line of group.children) attr(line, "d", curves.map((each) => each.d).join(""));
      attr(group, "data-key", link.key);
      attr(group, "data-load", link.state === "up" ? loadStep(link.load) : "none");
      attr(group, "data-link", link.state);
      attr(group, "data-back", related !== null && !related.has(link.key));
      attr(group.lastChild, "stroke-width", fixed(scale * (1.4 + 2.4 * Math.sqrt(link.mbps / widest) + (link.price_ms > 0 ? 1.2 : 0))));
      if (link.health === "bad" || link.health === "warn" || link.key === this.selected) {
        tagged.push({ link, way: curves[0] });
      }
    });
    this.drawTags(tagged, narrow);
  }

  // What is to be said of links: each where it covers no other, and no PoP or origin, if there is such a place.
  drawTags(tagged, narrow) {
    this.plates = [];
    const taken = [...this.placed.spots.values()];
    keyed(this.layers.marks, tagged, ({ link }) => link.key, () => svg("g", { class: "tag" }, svg("rect", { rx: TAG_PX / 2, height: TAG_PX, y: -TAG_PX / 2 }), svg("text", { y: 4 })), (group, { link, way }) => {
      const words = { cut: narrow ? "✕" : "✕ cut", closed: narrow ? "▲" : "▲ closed", unknown: "?" }[link.state] ?? (narrow ? "▲" : `${link.price_ms > 0 ? "▲ " : ""}${link.load} %`);
      const wide = words.length * 6.6 + 14;
      const places = TAGS_AT.map(([t, off]) => ({ x: way.at(t).x, y: way.at(t).y + off }));
      const free = (circles) => places.find((place) => isFree(boxAround(place, wide, TAG_PX), this.plates, circles));
      const { x, y } = free(taken) ?? free([]) ?? places[0];
      this.plates.push(boxAround({ x, y }, wide, TAG_PX));
      attr(group, "data-key", link.key);
      attr(group, "data-state", link.health);
      attr(group, "data-load", link.state === "up" ? loadStep(link.load) : "none");
      attr(group, "transform", `translate(${fixed(x)} ${fixed(y)})`);
      for (const [name, value] of Object.entries({ x: -wide / 2, width: wide })) attr(group.firstChild, name, value);
      text(group.lastChild, words);
    });
  }

  // A curve between two nodes, or the pieces of one that goes around the Earth's other side.
  way(one, other, bend) { // `bend`: of a piece, from its ends.
    const { mode, places } = this.arranged;
    const { view, spots } = this.placed;
    const [from, to] = [spots.get(one), spots.get(other)];
    const turns = mode === "map" ? wrapped(places.get(one), places.get(other)).map(([a, b]) => [{ x: from.x + view.k * (a.x - places.get(one).x), y: from.y }, { x: to.x + view.k * (b.x - places.get(other).x), y: to.y }]) : [[from, to]];
    return turns.map(([a, b]) => curve(a, b, bend(a, b)).d).join("");
  }

  apart(one, other) {
    const [from, to] = [this.placed.spots.get(one), this.placed.spots.get(other)];
    return Math.hypot(from.x - to.x, from.y - to.y) > from.r + to.r + 6;
  }

  // Channels that go from PoP to PoP: from the one that relays, in the direction in which dots move.
  drawRelays({ scale, narrow }) {
    const { seen, selected } = this;
    const picked = selected.startsWith("pop ");
    const most = seen.relays[0]?.channels ?? 1;
    const wanted = picked ? seen.relays.filter(({ from, to }) => selected === `pop ${from}` || selected === `pop ${to}`) : selected ? [] : seen.relays;
    const shown = this.relays || picked ? wanted.filter(({ from, to }) => from !== to && this.apart(`pop ${from}`, `pop ${to}`)).slice(0, narrow && !picked ? RELAYS_SHOWN / 2 : RELAYS_SHOWN) : [];
    const make = () => svg("g", { class: "relay" }, svg("path", { class: "body" }), svg("path", { class: "drops" }));
    const named = shown.map((relay, index) => ({ ...relay, index })).sort((one, other) => (one.from + one.to < other.from + other.to ? -1 : 1));
    keyed(this.layers.relays, named, ({ from, to }) => `${from} ${to}`, make, (group, { from, to, channels, index }) => {
      const d = this.way(`pop ${from}`, `pop ${to}`, () => RELAY_BEND); // There and back are apart.
      const [body, drops] = group.children;
      const width = scale * (0.9 + 3.6 * Math.sqrt(channels / most));
      attr(body, "d", d);
      attr(body, "stroke-width", fixed(width));
      attr(drops, "d", index < FLOWS_MOVING ? d : null);
      attr(drops, "stroke-width", fixed(Math.max(1.3, width * 0.6)));
      attr(group, "data-tip", `${from} relays ${plural(channels, "channel")} to ${to}`);
      attr(group, "data-picked", picked);
    });
  }

  drawFlows({ scale, narrow }) {
    const { seen, selected } = this;
    const picked = selected.startsWith("pop ") || selected.startsWith("origin ");
    const apart = ({ pop, origin }) => this.apart(`pop ${pop}`, `origin ${origin}`);
    const most = seen.flows[0]?.units ?? 1;
    const wanted = picked ? seen.flows.filter((flow) => selected === `pop ${flow.pop}` || selected === `origin ${flow.origin}`) : selected ? [] : seen.flows;
    const shown = this.flows || picked ? wanted.filter(apart).slice(0, picked ? 2 * FLOWS_SHOWN : narrow ? FLOWS_SHOWN / 2 : FLOWS_SHOWN) : [];
    const make = () => svg("g", { class: "flow" }, svg("path", { class: "body" }), svg("path", { class: "drops" }));
    // In an order that stays, so that none is put elsewhere only because another has grown.
    const named = shown.map((flow, index) => ({ ...flow, index })).sort((one, other) => (one.pop + one.origin < other.pop + other.origin ? -1 : 1));
    keyed(this.layers.streams, named, (flow) => `${flow.pop} ${flow.origin}`, make, (group, flow) => {
      const d = this.way(`pop ${flow.pop}`, `origin ${flow.origin}`, (a, b) => (a.x < b.x ? FLOW_BEND : -FLOW_BEND));
      const [body, drops] = group.children;
      const width = scale * (0.7 + 6.3 * Math.sqrt(flow.units / most));
      attr(body, "d", d);
      attr(body, "stroke-width", fixed(width));
      const moves = flow.index < FLOWS_MOVING;
      attr(drops, "d", moves ? d : null);
      attr(drops, "stroke-width", fixed(Math.max(1.3, width * 0.45)));
      attr(group, "data-tip", `${flow.pop} → ${flow.origin}: ${plural(flow.units, "unit")}`);
      attr(group, "data-picked", picked);
    });
  }

  drawNodes({ spots, most, scale }, related) {
    const nodes = [...this.seen.pops, ...this.seen.origins];
    keyed(this.layers.spots, nodes, (node) => node.key, makeSpot, (group, node) => {
      const spot = spots.get(node.key);
      const r = node.kind === "origin" ? this.originRadius(node, most.slots, scale) : this.popRadius(node, most.streams, scale);
      setSpot(group, node, spot, node.kind === "origin" ? spot.r : r, node.key === this.selected);
      attr(group, "data-back", related !== null && !related.has(node.key));
    });
  }

  drawLabels({ spots, narrow, width, height }, related) {
    const { seen, selected } = this;
    const taken = [...spots].map(([key, spot]) => ({ key, ...spot }));
    const rank = (node) => (node.key === selected ? 0 : related?.has(node.key) ? 1 : node.kind === "origin" ? 2 : node.health !== "ok" ? 3 : 4);
    const nodes = [...seen.origins, ...seen.pops].sort((one, other) => rank(one) - rank(other) || (other.streams ?? 0) - (one.streams ?? 0) || (one.name < other.name ? -1 : 1));
    const inside = nodes.filter((node) => {
      const { x, y } = spots.get(node.key);
      return x > 0 && y > 0 && x < width && y < height;
    });
    const wanted = inside.map((node) => {
      const big = node.kind === "origin";
      return { key: node.key, node, ...spots.get(node.key), width: node.name.length * (big ? CHARACTER + 0.5 : CHARACTER - 0.6), height: big ? 15 : 13 };
    });
    const found = label(wanted, taken, this.plates);
    const shown = wanted.filter(({ key, node }) => found.has(key) && (!narrow || node.kind === "origin" || rank(node) < 4));
    shown.sort((one, other) => (one.key < other.key ? -1 : 1));
    keyed(this.layers.labels, shown, ({ key }) => key, () => svg("text"), (node, { key, node: { kind, name, health } }) => {
      const place = found.get(key);
      attr(node, "class", kind);
      attr(node, "data-state", health);
      attr(node, "data-back", related !== null && !related.has(key));
      attr(node, "x", fixed(place.x));
      attr(node, "y", fixed(place.y));
      attr(node, "text-anchor", place.anchor);
      text(node, name);
    });
  }

  // --- By hand

  listen() {
    const { root } = this;
    const held = new Map();
    let moved = 0;
    const at = (event) => {
      const box = root.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    root.addEventListener("pointerdown", (event) => {
      held.set(event.pointerId, at(event));
      moved = 0;
    });
    root.addEventListener("pointermove", (event) => {
      this.hover(event);
      const before = held.get(event.pointerId);
      if (!before) return;
      const now = at(event);
      const others = [...held].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      moved += Math.hypot(now.x - before.x, now.y - before.y);
      held.set(event.pointerId, now);
      if (moved < CLICK_PX) return;
      if (!root.hasPointerCapture(event.pointerId)) root.setPointerCapture(event.pointerId);
      if (others.length === 1) {
        const [other] = others;
        const factor = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
        this.zoomBy(factor, other);
      } else if (!others.length) this.pan(now.x - before.x, now.y - before.y);
    });
    for (const over of ["pointerup", "pointercancel", "pointerleave"]) {
      root.addEventListener(over, (event) => {
        held.delete(event.pointerId);
        if (over === "pointerleave") this.tip.hidden = true;
      });
    }
    root.addEventListener("click", (event) => {
      if (moved >= CLICK_PX) return;
      this.onSelect(event.target.closest("[data-key]")?.dataset.key ?? "");
    });
    root.addEventListener("dblclick", (event) => this.zoomBy(2, at(event)));
    root.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // The page is to scroll otherwise.
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 200), at(event));
    }, { passive: false });
    root.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.goTo(...step);
    });
  }

  // Selects the next PoP or origin in a direction; with nothing selected, the one in the middle.
  goTo(dx, dy) {
    const { spots, width, height } = this.layout();
    const from = spots.get(this.selected) ?? { x: width / 2, y: height / 2 };
    let [best, least] = ["", Infinity];
    for (const [key, { x, y }] of spots) {
      if (key === this.selected) continue;
      const [ahead, aside] = [(x - from.x) * dx + (y - from.y) * dy, Math.abs((x - from.x) * dy) + Math.abs((y - from.y) * dx)];
      const cost = this.selected ? ahead + 2.5 * aside : Math.hypot(x - from.x, y - from.y);
      if ((!this.selected || ahead > 0.5) && cost < least) [best, least] = [key, cost];
    }
    if (best) this.onSelect(best);
  }

  zoomBy(factor, at = null) {
    const { width, height } = this.size;
    const { x, y } = at ?? { x: width / 2, y: height / 2 };
    const k = Math.max(1, Math.min(ZOOM_MAX, this.zoom.k * factor));
    const real = k / this.zoom.k;
    this.zoom = { k, x: x - real * (x - this.zoom.x), y: y - real * (y - this.zoom.y) };
    this.pan(0, 0);
  }

  pan(dx, dy) {
    const { width, height } = this.size;
    const { k } = this.zoom;
    const held = (value, size) => Math.max(size * (1 - k), Math.min(0, value)); // Never past the edge.
    this.zoom = { k, x: held(this.zoom.x + dx, width), y: held(this.zoom.y + dy, height) };
    attr(this.root, "data-zoomed", k > 1);
    this.tip.hidden = true;
    this.drawing ??= requestAnimationFrame(() => { // Several moves of a hand in one frame are one.
      this.drawing = null;
      this.draw();
    });
  }

  reset() {
    this.zoom = { k: 1, x: 0, y: 0 };
    this.pan(0, 0);
  }

  // Shows where something is: the view moves there if it is out of sight.
  reveal(key) {
    const { spots, width, height } = this.layout();
    const spot = spots.get(key);
    if (!spot || (spot.x > 20 && spot.y > 20 && spot.x < width - 20 && spot.y < height - 20)) return;
    this.pan(width / 2 - spot.x, height / 2 - spot.y);
  }

  hover(event) {
    const { tip } = this;
    const found = event.pointerType === "touch" ? null : event.target.closest("[data-key], [data-tip]");
    if (!found) {
      tip.hidden = true;
      return;
    }
    text(tip, found.dataset.tip ?? this.tell(found.dataset.key));
    tip.hidden = false;
    const box = this.parent.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const left = x + 16 + tip.offsetWidth > box.width ? x - 16 - tip.offsetWidth : x + 16;
    tip.style.setProperty("left", `${Math.max(4, left)}px`);
    tip.style.setProperty("top", `${Math.max(4, Math.min(box.height - tip.offsetHeight - 4, y + 12))}px`);
  }

  tell(key) {
    const { seen } = this;
    const found = [...seen.pops, ...seen.origins, ...seen.links].find((each) => each.key === key);
    return found ? summary(found) : "";
  }
}

// One line of a PoP, an origin or a link.
export function summary(one) {
  if (one.kind === "pop") return `PoP ${one.name}: ${one.word}, ${plural(one.streams, "unit")}${one.load === null ? "" : `, load ${one.load} %`}`;
  if (one.kind === "origin") return `Origin ${one.name}: ${one.word}, ${number(one.used)} of ${plural(one.slots, "slot")} used, ${one.load} %`;
  const rtt = one.rtt_tenth_ms < 0 ? "" : `, ${ms(one.rtt_tenth_ms / 10)}`;
  return `Link ${one.ends.join(" – ")} (${one.name}): ${one.word}, ${one.use_percent} % towards ${one.ends[1]}, ${one.use_back_percent} % back, of ${rate(one.mbps * 1e6)}${rtt}`;
}

function makeSpot(node) {
  const group = svg("g", { class: `spot ${node.kind}`, "data-key": node.key });
  group.append(svg("circle", { class: "halo" }), svg("circle", { class: "disc" }));
  if (node.kind === "origin") group.append(svg("circle", { class: "track" }), svg("circle", { class: "used", pathLength: 100, transform: "rotate(-90)" }), svg("text", { class: "share" }));
  group.append(badge());
  return group;
}

function setSpot(group, node, spot, r, selected) {
  attr(group, "transform", `translate(${fixed(spot.x)} ${fixed(spot.y)})`);
  attr(group, "data-state", node.health);
  attr(group, "data-load", node.kind === "pop" ? loadStep(node.load) : loadStep(node.load));
  attr(group, "data-selected", selected);
  const [halo, disc] = group.children;
  attr(halo, "r", fixed(r + 5));
  attr(disc, "r", fixed(r));
  if (node.kind === "origin") {
    const [, , track, used, share] = group.children;
    const ring = Math.max(2.5, r * 0.26);
    for (const circle of [track, used]) {
      attr(circle, "r", fixed(r - ring / 2));
      attr(circle, "stroke-width", fixed(ring));
    }
    attr(used, "stroke-dasharray", `${Math.min(100, node.state === "down" ? 0 : node.load)} 200`);
    text(share, node.state === "down" ? "" : node.load);
    attr(share, "y", fixed(r * 0.24));
    attr(share, "font-size", fixed(r * 0.68));
  }
  const size = node.kind === "origin" ? (node.state === "down" ? r * 1.1 : Math.max(11, r * 0.8)) : Math.max(11, r * 2);
  const off = node.kind === "origin" && node.state !== "down" ? r * 0.66 : 0;
  attr(group.lastChild, "visibility", node.health === "ok" ? "hidden" : null);
  setBadge(group.lastChild, node.health, { x: off, y: -off, size });
}

function describe(seen) {
  const count = (nodes) => nodes.filter((node) => node.health !== "ok").length;
  return `Map of ${plural(seen.pops.length, "PoP")}, ${count(seen.pops)} not well; ${plural(seen.origins.length, "origin")}, ${count(seen.origins)} not well; ${plural(seen.links.length, "link")}, ${count(seen.links)} not well. Arrow keys go from one to the next, Escape leaves.`;
}
