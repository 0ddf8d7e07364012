// The settings: quality, audio and latency as radio buttons in a popover, which the keyboard and readers of screens know.

const CODECS = { avc1: "H.264", avc3: "H.264", hvc1: "HEVC", hev1: "HEVC", av01: "AV1", vp09: "VP9" };
const LATENCY_KEY = "edged.latency";
const LATENCIES = [
  ["low", "Low", "as near as can be"],
  ["standard", "Standard", "steadier, but later"],
];
const GAP_PX = 10; // Between the menu and its button.
const $ = (id) => document.getElementById(id);

export function bitrateText(bps) {
  if (bps < 995_000) return `${Math.round(bps / 1000)} kbps`;
  return `${(bps / 1e6).toFixed(1)} Mbps`;
}

export function rungText(height, frameRate) {
  return `${height}p${Math.round(frameRate || 0) || ""}`;
}

// [index, name, detail] of each rung. Those of one size, in different codecs, are told apart by these.
export function rungChoices(rungs) {
  const names = rungs.map(([, rung]) => (rung.height ? rungText(rung.height, rung.frameRate) : bitrateText(rung.bitrate)));
  return rungs.map(([index, rung], i) => {
    const alone = names.indexOf(names[i]) === names.lastIndexOf(names[i]);
    const codec = CODECS[rung.videoCodec?.slice(0, 4)];
    return [index, alone || !codec ? names[i] : `${names[i]} ${codec}`, rung.height ? bitrateText(rung.bitrate) : ""];
  });
}

export function languageText({ name, lang }) {
  try {
    // The server names a rendition by its language where the broadcaster gave it no other name.
    return lang && name === lang ? new Intl.DisplayNames(navigator.language, { type: "language" }).of(lang) : name;
  } catch {
    return name;
  }
}

// What the viewer chose last, on this site; storage may be forbidden.
export function rememberedLatency() {
  try {
    return localStorage.getItem(LATENCY_KEY) === "standard" ? "standard" : "low";
  } catch {
    return "low";
  }
}

function rememberLatency(mode) {
  try {
    localStorage.setItem(LATENCY_KEY, mode);
  } catch {
    // Until the page is closed, then.
  }
}

function makeChoice(group, value, name, detail, choose) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: group, value });
  const text = Object.assign(document.createElement("span"), { textContent: name });
  const small = Object.assign(document.createElement("small"), { textContent: detail });
  input.addEventListener("change", () => choose(input.value));
  label.append(input, text, small);
  return label;
}

// Fill a group if its choices have changed; hidden where there is nothing to choose.
function showGroup(id, choices, chosen, choose) {
  const group = $(id);
  group.hidden = choices.length === 0;
  const shape = JSON.stringify(choices.map(([value, name]) => [value, name]));
  if (group.dataset.shape !== shape) {
    group.dataset.shape = shape;
    const labels = choices.map(([value, name, detail]) => makeChoice(id, String(value), name, detail, choose));
    group.replaceChildren(group.querySelector("legend"), ...labels);
  }
  for (const [i, input] of group.querySelectorAll("input").entries()) {
    input.checked = input.value === String(chosen);
    input.parentElement.lastChild.textContent = choices[i][2];
  }
}

export class Menu {
  #player;
  #menu = $("menu");
  #button = $("settings");

  constructor(player) {
    this.#player = player;
    this.#menu.addEventListener("toggle", (event) => this.#onToggle(event.newState === "open"));
    addEventListener("resize", () => this.#place());
    document.addEventListener("fullscreenchange", () => this.#menu.hidePopover?.());
  }

  get open() {
    return this.#menu.matches(":popover-open");
  }

  toggle() {
    this.#menu.togglePopover?.();
  }

  // `present` is the rung that is played now, which the player's own choice tells beside itself.
  update(present) {
    const { rungs, chosenRung, languages, chosenLanguage, latencyMode, hls } = this.#player;
    const auto = [-1, "Auto", chosenRung === -1 && present ? `now ${present}` : "by bandwidth"];
    showGroup("quality", rungs.length ? [auto, ...rungChoices(rungs)] : [], chosenRung, (value) =>
      this.#player.chooseRung(Number(value)),
    );
    const spoken = languages.map(([index, track]) => [index, languageText(track), ""]);
    showGroup("language", spoken, chosenLanguage, (value) => this.#player.chooseLanguage(Number(value)));
    showGroup("latency-mode", hls ? LATENCIES : [], latencyMode, (mode) => this.#chooseLatency(mode));
    this.#button.hidden = !hls; // The browser's own player chooses by itself.
    $("now").textContent = present ?? "";
  }

  #chooseLatency(mode) {
    rememberLatency(mode);
    this.#player.chooseLatency(mode);
  }

  #onToggle(open) {
    this.#button.setAttribute("aria-expanded", String(open));
    $("stage").classList.toggle("choosing", open);
    if (!open) return;
    this.#place();
    this.#menu.querySelector("input:checked")?.focus({ preventScroll: true });
  }

  // Above its button; where the screen is narrow the style sheet makes a sheet of it, at the bottom.
  #place() {
    if (!this.open) return;
    const { right, top } = this.#button.getBoundingClientRect();
    this.#menu.style.setProperty("--right", `${Math.max(8, document.documentElement.clientWidth - right)}px`);
    this.#menu.style.setProperty("--bottom", `${innerHeight - top + GAP_PX}px`);
    this.#menu.style.setProperty("--height-max", `${Math.max(160, top - 2 * GAP_PX)}px`);
  }
}
