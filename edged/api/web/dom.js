// Small helpers: elements made and changed only where something differs, so that nothing flickers,
// loses its focus or is read out again.

export const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) attr(node, name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

export function text(node, value) {
  const wanted = String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else {
    const wanted = value === true ? "" : String(value);
    if (node.getAttribute(name) !== wanted) node.setAttribute(name, wanted);
  }
}

// The children of `parent` become one per item, in order: kept by key, made where new, updated all.
export function keyed(parent, items, key, make, update) {
  const known = parent.edgedKnown ?? (parent.edgedKnown = new Map());
  const wanted = new Map(items.map((item) => [key(item), item]));
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  for (const [name, node] of known) {
    if (!wanted.has(name)) {
      node.remove();
      known.delete(name);
    }
  }
  let next = parent.firstElementChild;
  for (const [name, item] of wanted) {
    let node = known.get(name);
    if (node === undefined) {
      node = make(item);
      known.set(name, node);
    }
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
    update(node, item);
  }
  if (focused && document.activeElement !== focused && parent.contains(focused)) focused.focus({ preventScroll: true });
}

// State is told by shape, word and colour, never by colour alone.
const SHAPES = {
  ok: [["circle", { cx: 12, cy: 12, r: 9 }], ["path", { d: "m7.8 12.3 2.9 2.9 5.6-6", class: "mark" }]],
  warn: [["path", { d: "M12 3.2 22 20.5H2z" }], ["path", { d: "M12 9.6v5m0 2.6v.3", class: "mark" }]],
  bad: [["path", { d: "M8 2.8h8L21.2 8v8L16 21.2H8L2.8 16V8z" }], ["path", { d: "m8.6 8.6 6.8 6.8m0-6.8-6.8 6.8", class: "mark" }]],
  idle: [["circle", { cx: 12, cy: 12, r: 8, class: "hollow" }]],
};

export function icon(state) {
  const made = svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" });
  setIcon(made, state);
  return made;
}

// The same inside a drawing, where the page's own sizes of icons do not hold.
export const badge = () => svg("g", { class: "badge" });
export function setBadge(node, state, { x, y, size }) {
  setIcon(node, state);
  attr(node, "data-state", state);
  attr(node, "transform", `translate(${(x - size / 2).toFixed(1)} ${(y - size / 2).toFixed(1)}) scale(${(size / 24).toFixed(3)})`);
}

export function setIcon(node, state) {
  if (node.dataset.state === state) return;
  node.dataset.state = state;
  node.replaceChildren(...SHAPES[state].map(([name, attributes]) => svg(name, attributes)));
}
