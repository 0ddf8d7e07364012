// The last hour: slots used and streams moved, over time, with marks where something happened; and the
// slider over them.

import { attr, badge, keyed, setBadge, svg } from "./dom.js";
import { isMark, told } from "./events.js";

const HEIGHT = 74;
const LANE = 18; // Of the marks, at the top.
const AXIS = 16; // Of the times, at the bottom.
const BARS_PX = 4;
const MARKS_PX = 11; // Nearer ones are one, the worst of them.
const RANK = { bad: 0, warn: 1, ok: 2, idle: 3 };

const SECONDS = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const MINUTES = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

export const clockOf = (at, seconds = true) => (seconds ? SECONDS : MINUTES).format(new Date(at * 1000));

export class Timeline {
  constructor(parent) {
    this.parent = parent;
    this.layers = Object.fromEntries(["axis", "moves", "marks"].map((name) => [name, svg("g", { class: name })]));
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.full = svg("path", { class: "full" });
    this.future = svg("rect", { class: "future", y: LANE });
    this.needle = svg("path", { class: "needle" });
    this.root = svg("svg", { class: "hours", "aria-hidden": "true", height: HEIGHT }, this.layers.axis, this.full, this.area, this.line, this.layers.moves, this.future, this.layers.marks, this.needle);
    parent.prepend(this.root);
    this.past = null;
    new ResizeObserver(() => {
      this.width = Math.floor(parent.clientWidth); // Asked for at each draw it would have the page laid out each time.
      this.draw();
    }).observe(parent);
  }

  show(past, index) {
    Object.assign(this, { past, index });
    this.draw();
  }

  draw() {
    const { past } = this;
    const width = this.width ?? 0;
    if (!past || past.last < 0 || width < 50) return;
    const [from, until] = [past.samples[0].at, past.samples[past.last].at];
    const span = Math.max(1, until - from);
    const x = (at) => (width * (at - from)) / span;
    const bottom = HEIGHT - AXIS;
    const drawn = [past.cursor, past.samples[0].seq, width].join();
    if (this.drawn !== drawn) { // Else only the needle has moved.
      this.drawn = drawn;
      attr(this.root, "viewBox", `0 0 ${width} ${HEIGHT}`);
      attr(this.root, "width", width);
      this.drawUse(x, bottom);
      this.drawMoves(x, bottom, width);
      this.drawMarks(x, width);
      this.drawAxis(x, from, until, width);
    }
    const here = x(past.samples[this.index].at);
    attr(this.needle, "d", `M${here.toFixed(1)} ${LANE - 4}V${bottom}`);
    for (const [name, value] of Object.entries({ x: here.toFixed(1), width: Math.max(0, width - here).toFixed(1), height: bottom - LANE })) attr(this.future, name, value);
  }

  drawUse(x, bottom) {
    const { samples } = this.past;
    const high = bottom - LANE - 2;
    const share = ({ totals }) => (totals.slots ? Math.min(1, totals.used / totals.slots) : 0);
    const points = samples.map((sample) => `${x(sample.at).toFixed(1)} ${(bottom - high * share(sample)).toFixed(1)}`);
    const path = `M${points.join("L")}`;
    const [first, last] = [x(samples[0].at).toFixed(1), x(samples[samples.length - 1].at).toFixed(1)];
    attr(this.line, "d", path);
    attr(this.area, "d", `${path}L${last} ${bottom}L${first} ${bottom}Z`);
    attr(this.full, "d", `M${first} ${bottom - high}H${last}`);
  }

  drawMoves(x, bottom, width) {
    const bars = new Array(Math.ceil(width / BARS_PX)).fill(0);
    for (const { at, moved } of this.past.samples) bars[Math.min(bars.length - 1, Math.floor(x(at) / BARS_PX))] += moved;
    const most = Math.max(10, ...bars);
    const high = (bottom - LANE) * 0.62;
    const shown = bars.map((count, index) => ({ count, index })).filter(({ count }) => count);
    keyed(this.layers.moves, shown, ({ index }) => index, () => svg("rect", { width: BARS_PX - 1, rx: 1 }), (bar, { count, index }) => {
      const tall = Math.max(2, high * Math.sqrt(count / most));
      attr(bar, "x", index * BARS_PX);
      attr(bar, "y", (bottom - tall).toFixed(1));
      attr(bar, "height", tall.toFixed(1));
    });
  }

  drawMarks(x, width) {
    const marks = [];
    for (const event of this.past.events) {
      if (!isMark(event)) continue;
      const { state } = told(event);
      const at = Math.min(width - 6, Math.max(6, x(event.at)));
      const near = marks.length ? marks[marks.length - 1] : null;
      if (near && at - near.at < MARKS_PX) {
        if (RANK[state] < RANK[near.state]) near.state = state;
      } else marks.push({ at, state });
    }
    keyed(this.layers.marks, marks, (mark) => marks.indexOf(mark), badge, (node, mark) => setBadge(node, mark.state, { x: mark.at, y: 6, size: 11 }));
  }

  drawAxis(x, from, until, width) {
    const step = [10, 30, 60, 300, 600, 900, 1800].find((seconds) => (width * seconds) / Math.max(1, until - from) >= 74) ?? 1800;
    const times = [];
    for (let at = Math.ceil(from / step) * step; at <= until; at += step) times.push(at);
    keyed(this.layers.axis, times, (at) => at, () => svg("g", {}, svg("path"), svg("text", { y: HEIGHT - 3 })), (group, at) => {
      const here = x(at);
      attr(group.firstChild, "d", `M${here.toFixed(1)} ${LANE}V${HEIGHT - AXIS}`);
      const [, words] = group.children;
      attr(words, "x", Math.min(width - 2, Math.max(2, here)).toFixed(1));
      attr(words, "text-anchor", here < 20 ? "start" : here > width - 20 ? "end" : "middle");
      words.textContent = clockOf(at, step < 60);
    });
  }
}
