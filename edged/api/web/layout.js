// Where everything is drawn: on Miller's projection where sites have coordinates, else on two rings;
// and apart from each other, where they would overlap. The same network is drawn the same each time.
// Pure: it touches no page.

const RADIANS = Math.PI / 180;
const LATITUDE_MAX = 85;

// Miller's cylindrical projection: near enough to shapes in the middle latitudes, where PoPs are, and it
// ends at the poles. In radians of the equator; y goes down.
export function project(latitude, longitude) {
  const phi = Math.max(-LATITUDE_MAX, Math.min(LATITUDE_MAX, latitude)) * RADIANS;
  return { x: longitude * RADIANS, y: -1.25 * Math.log(Math.tan(Math.PI / 4 + 0.4 * phi)) };
}

export const TURN = 2 * Math.PI; // A whole way around.

const INNER = 0.42; // Of the outer ring.
const WIDE = 2; // Rings are wider than high, as screens are.

// Each node's place in the plane: { mode: "map" or "ring", places: Map(key -> {x, y}), sites: [...] }.
export function arrange(seen) {
  const located = seen.sites.map(([, latitude, longitude]) => (latitude === null || latitude === undefined ? null : project(latitude, longitude)));
  const nodes = [...seen.origins, ...seen.pops];
  const known = nodes.filter((node) => located[node.site]);
  const mode = known.length >= 2 && known.length * 2 >= nodes.length ? "map" : "ring";
  const sites = mode === "map" ? located : new Array(seen.sites.length).fill(null);
  const places = new Map();
  if (mode === "map") {
    const rest = nodes.filter((node) => !located[node.site]);
    for (const node of known) places.set(node.key, located[node.site]);
    const box = around(known.map((node) => located[node.site]));
    // What nobody placed stands in a row below the rest.
    rest.forEach((node, index) => places.set(node.key, { x: box.x + (box.width * (index + 0.5)) / rest.length, y: box.y + box.height + 0.12 }));
    seen.sites.forEach((_, index) => {
      if (!sites[index]) sites[index] = rest.filter((node) => node.site === index).map((node) => places.get(node.key))[0] ?? null;
    });
    return { mode, places, sites };
  }
  // One place per site, or per node without one; those with an origin stand inside.
  const groups = new Map();
  for (const node of nodes) {
    const name = node.site >= 0 ? `site ${seen.sites[node.site][0]}` : node.key;
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(node);
  }
  const byName = [...groups].sort(([one], [other]) => (one < other ? -1 : 1));
  const inside = byName.filter(([, group]) => group.some((node) => node.kind === "origin"));
  const outside = byName.filter(([, group]) => group.every((node) => node.kind === "pop"));
  for (const [ring, radius] of [[inside, outside.length ? INNER : 1], [outside, 1]]) {
    ring.forEach(([, group], index) => {
      const angle = (TURN * index) / ring.length + (ring.length === 2 ? Math.PI : -Math.PI / 2);
      const alone = ring.length === 1 && ring === inside;
      const place = alone ? { x: 0, y: 0 } : { x: WIDE * radius * Math.cos(angle), y: radius * Math.sin(angle) };
      for (const node of group) {
        places.set(node.key, place);
        if (node.site >= 0) sites[node.site] = place;
      }
    });
  }
  return { mode, places, sites };
}

export function around(points) {
  const [xs, ys] = [points.map((point) => point.x), points.map((point) => point.y)];
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return { x, y, width: Math.max(...xs) - x, height: Math.max(...ys) - y };
}

// The view that has all points in it: { k, x, y }, so that a point is seen at k * point + (x, y).
export function fit(points, width, height, margin) {
  if (!points.length) return { k: 1, x: width / 2, y: height / 2 };
  const box = around(points);
  const { top = margin, bottom = margin, side = margin } = typeof margin === "object" ? margin : {};
  const k = Math.min((width - 2 * side) / Math.max(box.width, 0.05), (height - top - bottom) / Math.max(box.height, 0.05));
  return { k, x: width / 2 - k * (box.x + box.width / 2), y: top + (height - top - bottom) / 2 - k * (box.y + box.height / 2) };
}

const ROUNDS = 70;
const PAIRS_ROUNDS = 10; // They are looked for anew so often.
const NEAR_PX = 20;
const CALM_ROUNDS = 30; // At the end nothing is pulled back.

// Circles pushed apart until they hardly overlap, each held by where it belongs; `heavy` ones move little.
// Takes [{ x, y, r, heavy }], returns [{ x, y }].
export function spread(circles, gap = 1.5) {
  // Those of one place leave it in different directions.
  const at = circles.map(({ x, y }, index) => ({ x: x + 0.01 * Math.cos(2.4 * index), y: y + 0.01 * Math.sin(2.4 * index) }));
  let pairs = [];
  for (let round = 0; round < ROUNDS; round++) {
    if (round % PAIRS_ROUNDS === 0) pairs = neighbours(circles, at);
    let worst = 0;
    for (const [one, other] of pairs) worst = Math.max(worst, push(circles, at, one, other, gap));
    if (worst < 0.4) break;
    if (round >= ROUNDS - CALM_ROUNDS) continue;
    circles.forEach(({ x, y, heavy }, index) => {
      const pull = heavy ? 0.12 : 0.03;
      at[index].x += pull * (x - at[index].x);
      at[index].y += pull * (y - at[index].y);
    });
  }
  return at;
}

// Those that could come to touch within PAIRS_ROUNDS.
function neighbours(circles, at) {
  const found = [];
  for (let one = 0; one < circles.length; one++) {
    for (let other = one + 1; other < circles.length; other++) {
      const near = circles[one].r + circles[other].r + NEAR_PX;
      if (Math.abs(at[other].x - at[one].x) < near && Math.abs(at[other].y - at[one].y) < near) found.push([one, other]);
    }
  }
  return found;
}

// Two circles moved apart; returns by how much they overlapped.
function push(circles, at, one, other, gap) {
  const wanted = circles[one].r + circles[other].r + gap;
  const [dx, dy] = [at[other].x - at[one].x, at[other].y - at[one].y];
  if (dx > wanted || dx < -wanted || dy > wanted || dy < -wanted) return 0;
  const apart = Math.hypot(dx, dy);
  if (apart >= wanted) return 0;
  const overlap = wanted - apart;
  const [ux, uy] = apart > 1e-6 ? [dx / apart, dy / apart] : [1, 0];
  const share = circles[one].heavy === circles[other].heavy ? 0.5 : circles[one].heavy ? 0.08 : 0.92;
  at[one].x -= ux * overlap * share;
  at[one].y -= uy * overlap * share;
  at[other].x += ux * overlap * (1 - share);
  at[other].y += uy * overlap * (1 - share);
  return overlap;
}

// Which labels have room, and where: the first of the list first. Each is { key, x, y, r, width, height };
// `taken` are circles that none may cover, `plates` boxes. Returns Map(key -> { x, y, anchor }).
export function label(wanted, taken, plates = []) {
  const boxes = [...plates];
  const found = new Map();
  for (const { key, x, y, r, width, height } of wanted) {
    const beside = [
      { x: x + r + 4, y: y + height * 0.32, left: x + r + 4, top: y - height / 2, anchor: "start" },
      { x: x - r - 4, y: y + height * 0.32, left: x - r - 4 - width, top: y - height / 2, anchor: "end" },
      { x, y: y + r + height * 0.85, left: x - width / 2, top: y + r + 1, anchor: "middle" },
      { x, y: y - r - 4, left: x - width / 2, top: y - r - 2 - height, anchor: "middle" },
    ];
    for (const place of beside) {
      const box = { left: place.left - 1, right: place.left + width + 1, top: place.top, bottom: place.top + height };
      if (!isFree(box, boxes, taken.filter((circle) => circle.key !== key))) continue;
      boxes.push(box);
      found.set(key, { x: place.x, y: place.y, anchor: place.anchor });
      break;
    }
  }
  return found;
}

export const boxAround = ({ x, y }, width, height) => ({ left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 });

// Whether a box covers none of these boxes and circles.
export function isFree(box, boxes, circles) {
  const beside = (other) => box.left >= other.right || box.right <= other.left || box.top >= other.bottom || box.bottom <= other.top;
  return boxes.every(beside) && !circles.some((circle) => covers(box, circle));
}

function covers(box, { x, y, r }) {
  const dx = Math.max(box.left - x, 0, x - box.right);
  const dy = Math.max(box.top - y, 0, y - box.bottom);
  return dx * dx + dy * dy < r * r;
}

// A curve between two places, its middle off to one side by `bend` of its length: { d, at(t) }, where t
// goes from 0 to 1.
export function curve(from, to, bend) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const control = { x: (from.x + to.x) / 2 + dy * bend, y: (from.y + to.y) / 2 - dx * bend };
  const fixed = (value) => value.toFixed(1);
  return {
    d: `M${fixed(from.x)} ${fixed(from.y)}Q${fixed(control.x)} ${fixed(control.y)} ${fixed(to.x)} ${fixed(to.y)}`,
    at: (t) => {
      const mix = (one, two, three) => (1 - t) ** 2 * one + 2 * t * (1 - t) * two + t ** 2 * three;
      return { x: mix(from.x, control.x, to.x), y: mix(from.y, control.y, to.y) };
    },
  };
}

// The other end of a line that is nearer the other way around the Earth.
export function wrapped(from, to) {
  if (Math.abs(to.x - from.x) <= TURN / 2) return [[from, to]];
  const turn = to.x > from.x ? TURN : -TURN;
  return [[from, { x: to.x - turn, y: to.y }], [{ x: from.x + turn, y: from.y }, to]];
}

export const LOADS = [50, 75, 90, 99]; // Percent: from there on another colour. Streams get 90 of a link at most.
export const loadStep = (percent) => (percent === null ? "none" : LOADS.filter((from) => percent >= from).length);
