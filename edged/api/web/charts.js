// Sparklines: a minute of samples, the newest at the right edge.

import { attr, svg } from "./dom.js";

const SECONDS = 60;
const HEIGHT = 24;

export function spark(label) {
  const made = svg(
    "svg",
    { viewBox: `0 0 ${SECONDS} ${HEIGHT}`, preserveAspectRatio: "none", class: "spark", role: "img", "aria-label": label },
    svg("path", { class: "area" }),
    svg("path", { class: "line" }),
  );
  return made;
}

// `floor`: the least that the top of the chart stands for, so that noise around nothing stays flat.
export function setSpark(node, values, floor = 1) {
  const [area, line] = node.children;
  const shown = values.slice(-SECONDS - 1);
  if (shown.length < 2 || !shown.some((value) => value > 0)) {
    attr(area, "d", null);
    attr(line, "d", null);
    return;
  }
  const top = Math.max(floor, ...shown) * 1.08;
  const points = shown.map((value, index) => {
    const x = SECONDS - (shown.length - 1 - index);
    return `${x} ${(HEIGHT - 1.5 - (HEIGHT - 3) * (value / top)).toFixed(2)}`;
  });
  const path = `M${points.join("L")}`;
  attr(line, "d", path);
  attr(area, "d", `${path}L${SECONDS} ${HEIGHT}L${SECONDS - (shown.length - 1)} ${HEIGHT}Z`);
}
