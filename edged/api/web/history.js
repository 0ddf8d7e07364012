// The last hour as IRS tells it: lines that say what changed, kept as they came; the network at any
// of them; what was there in all at each; and what happened. Pure: it touches no page.

const REFUSED_HEALTH = 1; // From so many refusals in a sample on, a PoP is not well.

// What a block's rows are of: the names, and which number of a row is what.
class Frame {
  constructor(whole) {
    Object.assign(this, whole);
    this.column = Object.fromEntries(Object.entries(whole.rows).map(([what, names]) => [what, Object.fromEntries(names.map((name, index) => [name, index]))]));
  }
}

// The rows as they stand at one line; goes forward by the lines that follow.
class Rows {
  constructor(frame) {
    this.frame = frame;
    this.irs = ["", 0, "", 0];
    this.pops = [];
    this.origins = [];
    this.links = [];
    this.reach = [];
    this.flows = new Map(); // "pop origin", by their places -> units.
    this.relays = new Map(); // The same of the PoP that relays and the PoP that it relays to -> channels.
  }

  apply(line) {
    if (line.irs) this.irs = line.irs;
    for (const what of ["pops", "origins", "links", "reach"]) {
      for (const [place, ...row] of line[what] ?? []) this[what][place] = row;
    }
    for (const what of ["flows", "relays"]) {
      const changed = line[what] ?? [];
      for (let index = 0; index < changed.length; index += 3) {
        const key = changed[index] * 4096 + changed[index + 1];
        if (changed[index + 2]) this[what].set(key, changed[index + 2]);
        else this[what].delete(key);
      }
    }
  }

  totals() {
    const { pops: pop, origins: origin } = this.frame.column;
    const states = this.frame.states.origins;
    const sum = (rows, value) => rows.reduce((whole, row) => whole + value(row), 0);
    const takes = this.origins.filter((row) => !["down", "suspect"].includes(states[row[origin.state]]));
    return {
      streams: sum(this.pops, (row) => row[pop.streams]),
      arrivals: sum(this.pops, (row) => row[pop.arrivals]),
      refused: sum(this.pops, (row) => row[pop.unplaced]),
      slots: sum(takes, (row) => row[origin.slots]),
      used: sum(takes, (row) => Math.min(row[origin.used], row[origin.slots])),
    };
  }
}

export class History {
  constructor() {
    this.clear();
  }

  clear() {
    this.run = "";
    this.samples = []; // { seq, at, line, frame, begins, totals, moved }
    this.events = []; // Oldest first, each with `at`.
    this.newest = null; // Rows of the last sample.
    this.sought = null; // { index, rows }: where the last look was.
  }

  get last() {
    return this.samples.length - 1;
  }

  // What the next question is to be asked after.
  get cursor() {
    return this.samples.length ? `${this.run}-${this.samples[this.last].seq}` : "";
  }

  // Takes lines, and returns how many samples they were.
  take(text) {
    const lines = text.split("\n").filter(Boolean).map((each) => JSON.parse(each));
    for (const line of lines) this.add(line);
    if (lines.length) this.forget();
    return lines.length;
  }

  add(line) {
    const before = this.samples[this.last];
    if (line.whole) {
      // Another run, or a gap: what was before does not lead here.
      if (line.whole.run !== this.run || (before && line.seq !== before.seq + 1)) this.clear();
      this.run = line.whole.run;
      this.newest = new Rows(new Frame(line.whole));
    }
    if (!this.newest || (before && !line.whole && line.seq !== before.seq + 1)) throw new Error("the history has a gap; load the page again");
    this.newest.apply(line);
    const events = line.events ?? [];
    const moved = events.reduce((sum, event) => sum + (event.kind === "moved" ? event.count ?? 1 : 0), 0);
    this.samples.push({ seq: line.seq, at: line.at, line, frame: this.newest.frame, begins: !!line.whole, totals: this.newest.totals(), moved });
    for (const event of events) this.events.push({ count: 1, ...event, index: line.seq });
  }

  // Lets go of what is more than the hour that is kept, a block at a time.
  forget() {
    const { frame, at } = this.samples[this.last];
    const from = at - frame.keeps_s;
    let cut = 0;
    for (let index = 1; index <= this.last && this.samples[index - 1].at < from; index++) {
      if (this.samples[index].begins) cut = index;
    }
    if (!cut) return;
    this.samples.splice(0, cut);
    this.sought = null;
    const first = this.samples[0].at - frame.interval_s;
    this.events = this.events.filter((event) => event.at >= first);
  }

  // The place of the sample that held at a time: the last that is not later.
  indexAt(at) {
    let [low, high] = [0, this.last];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.samples[middle].at <= at) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  rowsAt(index) {
    if (index === this.last) return this.newest;
    let from = index;
    while (!this.samples[from].begins) from -= 1;
    let { sought } = this;
    if (!sought || sought.index > index || sought.index < from) {
      sought = { index: from - 1, rows: new Rows(this.samples[from].frame) };
    }
    for (let next = sought.index + 1; next <= index; next++) sought.rows.apply(this.samples[next].line);
    this.sought = { index, rows: sought.rows };
    return sought.rows;
  }

  // The network at a sample, with names and states.
  at(index) {
    const rows = this.rowsAt(index);
    const { frame } = rows;
    const sample = this.samples[index];
    const named = (what, place) => {
      const found = { name: frame[what][place][0] };
      frame.rows[what].forEach((name, column) => (found[name] = rows[what][place][column]));
      found.state = frame.states[what][found.state] ?? "";
      return found;
    };
    const site = (number) => frame.sites[number] ?? null;
    const reach = (place) => Object.fromEntries((frame.rows.reach ?? []).map((name, column) => [name, rows.reach[place]?.[column] ?? 0]));
    const pops = frame.pops.map(([, at], place) => popSeen({ ...named("pops", place), reach: reach(place), relays: 0, site: at }));
    const origins = frame.origins.map(([, at], place) => originSeen({ ...named("origins", place), site: at }));
    const links = frame.links.map(([, one, other, mbps], place) => linkSeen({ ...named("links", place), one, other, mbps, ends: [site(one)[0], site(other)[0]] }));
    const flows = [...rows.flows].map(([key, units]) => ({ pop: pops[Math.floor(key / 4096)].name, origin: origins[key % 4096].name, units }));
    flows.sort((one, other) => other.units - one.units);
    const relays = [...rows.relays].map(([key, channels]) => ({ from: pops[Math.floor(key / 4096)].name, to: pops[key % 4096].name, channels }));
    relays.sort((one, other) => other.channels - one.channels || (one.from + one.to < other.from + other.to ? -1 : 1));
    for (const [key, channels] of rows.relays) pops[Math.floor(key / 4096)].relays += channels;
    const [standing, epoch, fallback, unserved] = rows.irs;
    return { at: sample.at, totals: sample.totals, sites: frame.sites, pops, origins, links, flows, relays, irs: { standing, epoch, fallback, unserved } };
  }
}

function popSeen(pop) {
  const health = !pop.connected ? "bad" : ["full", "no_route"].includes(pop.state) || pop.unplaced || pop.refusals >= REFUSED_HEALTH ? "warn" : "ok";
  const state = { full: "full", no_route: "no origin takes its streams", drain: "drains" }[pop.state];
  const refused = pop.unplaced ? `${pop.unplaced} turned away` : pop.refusals ? `${pop.refusals} refused by origins` : "";
  const word = !pop.connected ? "not connected" : state ?? (refused || "well");
  return { ...pop, kind: "pop", key: `pop ${pop.name}`, health: health === "ok" && pop.state === "drain" ? "warn" : health, word, load: pop.load_percent < 0 ? null : pop.load_percent };
}

const ORIGIN_WORDS = { up: "up", suspect: "suspect: heartbeats are missing", down: "down", probation: "back, on probation", drain: "drains: nothing new goes there" };

function originSeen(origin) {
  const load = origin.slots ? Math.round((100 * origin.used) / origin.slots) : 0;
  const health = origin.state === "down" ? "bad" : origin.state === "up" && origin.usable_percent === 100 ? "ok" : "warn";
  const limited = origin.usable_percent < 100 ? `, ${origin.usable_percent} % may be used` : "";
  return { ...origin, kind: "origin", key: `origin ${origin.name}`, health, load, word: `${ORIGIN_WORDS[origin.state] ?? origin.state}${limited}` };
}

function linkSeen(link) {
  const load = Math.max(link.use_percent, link.use_back_percent);
  const health = link.state === "cut" ? "bad" : link.state === "closed" || link.price_ms > 0 ? "warn" : link.state === "unknown" ? "idle" : "ok";
  const word = { cut: "cut", closed: "closed: not to be used", unknown: "not known: no path across it was told of" }[link.state] ?? (link.price_ms ? "filling" : "up");
  return { ...link, kind: "link", key: `link ${link.name}`, health, load, word };
}
