// One channel's playback: finds the stream, plays it by hls.js (or natively), and begins again by itself whenever it
// ends, breaks or comes back. It knows nothing of the page; it reports its state to `onchange`.

import { holdBackFor, makeAbrController, RoundTrip } from "./abr.js";
import { Calm, rateFor } from "./nearer.js";
import { passOverBuffered } from "./parts.js";

const PROBE_MS = 2_000; // While the channel is offline, ended or unreachable.
const EMPTY_MS = 400; // While a stream that has just begun has no whole segment, which hls.js needs.
const DENIED_MS = 10_000; // While the token is not good: another comes with another address of the page.
const PROBE_TIMEOUT_MS = 15_000; // The edge holds a request while it fetches a channel that is new to it.
const FIRST_PICTURE_MS = 15_000; // From attaching to the first picture, else begin again.
const FROZEN_MS = 12_000; // Without progress while it should play, else begin again.
const IDLE_MS = 1_500; // Without progress, and with nothing that comes though there is more: hls.js has lost its way.
const UNLOADED_S = 1; // So much more.
const STALLED_SHOWN_MS = 700; // A stall is said only after this, so that the page does not flicker.
const FAR_BEHIND = 1.2; // Times the hold-back: the one seek at start.
const NEAR_S = 0.1; // Nearer to live than one means to be by more than this, at the start: back, if that is buffered.
const START_MS = 2_000; // That the start lasts.
const WATCH_MS = 250;
const REWOUND_S = 2; // Nearer to live than this is live.
const MISSING_MS = 30_000; // A rung that is missing is looked for again: it may be made again.
const TO_EDGE_MS_MAX = 6_000; // For what is near live to be there before the seek to it, so that the picture goes on.
const OLDEST_S = 2; // The oldest listed goes while a player asks for it: so far from it one may go back.
const WHOLE_S = 0.004; // Of a segment that may lack: less than any part (some are one unit of sound), and times are rounded by.
export const LATENCY_MODES = ["low", "standard"]; // By parts, at PART-HOLD-BACK; by whole segments, at HOLD-BACK.

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The channel that a page's address names; as it stands there if it is no percent-encoded UTF-8: such a channel is offline.
export function channelOf(pathname) {
  const piece = pathname.split("/").filter(Boolean).pop() ?? "";
  try {
    return decodeURIComponent(piece);
  } catch {
    return piece;
  }
}

export class Player {
  state = "waiting"; // waiting, live, stalled, offline, denied, unreachable, unsupported or ended.
  reason = "";
  hls = null;
  stalls = 0;
  seeksToEdge = 0;
  starts = 0;
  errors = []; // The last few, for tests and the curious.
  rewound = false; // The viewer has chosen to be behind: a pause keeps the place.

  #latencyMode;
  #video;
  #source;
  #onchange;
  #endedMaster = null; // The multivariant playlist of the run that has ended.
  #master = null;
  #finish = null; // Ends the present run.
  #seekedAtStart = false;
  #beganAt = null; // When the first picture moved.
  #loadedAt = new Map(); // When media came last, by hls.js's kind of playlist: "main", "audio".
  #heldBack = false; // hls.js has been told how far.
  #roundTrip = new RoundTrip();
  #calm = new Calm();
  #stalledAt = null;
  #missing = 0; // The timer after which rungs that are missing are looked for.
  #toEdgeBy = null; // A seek to the edge is due as soon as there is a buffer there; by then at the latest.

  constructor(video, source, onchange, latencyMode = "low") {
    this.#latencyMode = latencyMode;
    this.#video = video;
    this.#source = source;
    this.#onchange = onchange;
    video.addEventListener("waiting", () => this.#onWaiting());
    video.addEventListener("playing", () => this.#onPlaying());
    video.addEventListener("ended", () => this.#finish?.("ended"));
  }

  // Seconds behind the live edge, as the playlists say; null when unknown.
  get behindS() {
    const latency = this.hls?.latency;
    return Number.isFinite(latency) && latency > 0 ? latency : null;
  }

  // How far behind it means to be: as the server asks, and after stalls hls.js adds to that.
  get holdBackS() {
    const details = this.hls?.latestLevelDetails;
    return details ? this.hls.targetLatency || 3 * details.targetduration : null;
  }

  get bandwidthBps() {
    return this.hls?.bandwidthEstimate || null;
  }

  get latencyMode() {
    return this.#latencyMode;
  }

  // What the playlist lists, as times of the video: from its oldest segment to where live is. Null when unknown.
  get window() {
    const details = this.hls?.latestLevelDetails;
    const live = this.hls?.liveSyncPosition;
    if (details && Number.isFinite(live)) return { start: details.fragmentStart, live };
    const { seekable } = this.#video;
    return !this.hls && seekable.length ? { start: seekable.start(0), live: this.#nativeEdge() } : null;
  }

  // The wallclock of the picture shown, in ms since 1970; null when unknown.
  get playingMs() {
    if (this.hls) return this.hls.playingDate?.getTime() ?? null;
    const startMs = this.#video.getStartDate?.().getTime(); // Safari's own player.
    return Number.isFinite(startMs) ? startMs + this.#video.currentTime * 1000 : null;
  }

  get bufferS() {
    const { buffered, currentTime } = this.#video;
    for (let i = 0; i < buffered.length; i++) {
      if (buffered.start(i) <= currentTime + 0.1 && currentTime <= buffered.end(i)) return buffered.end(i) - currentTime;
    }
    return 0;
  }

  get rung() {
    const hls = this.hls;
    return hls ? hls.levels?.[hls.currentLevel] ?? null : null;
  }

  // What a viewer may choose from: rungs from the best, -1 for the player's own choice; languages. Each is [index, thing].
  get rungs() {
    const rungs = [...(this.hls?.levels ?? []).entries()];
    return rungs.length > 1 ? rungs.reverse() : [];
  }

  get languages() {
    const tracks = [...(this.hls?.audioTracks ?? []).entries()];
    return tracks.length > 1 ? tracks : [];
  }

  get chosenRung() {
    return this.hls?.autoLevelEnabled === false ? this.hls.manualLevel : -1;
  }

  get chosenLanguage() {
    return this.hls?.audioTrack ?? -1;
  }

  // From the next segment on: what is buffered beyond it is replaced, and the picture goes on meanwhile.
  chooseRung(index) {
    if (this.hls) this.hls.nextLevel = index;
  }

  // As soon as it is there: `audioTrack` would throw away what is buffered, and the picture would wait for it.
  chooseLanguage(index) {
    if (this.hls) this.hls.nextAudioTrack = index;
  }

  // Takes effect at once, without a new start: the place is behind or ahead in what is there already.
  chooseLatency(mode) {
    if (mode === this.#latencyMode || !LATENCY_MODES.includes(mode)) return;
    this.#latencyMode = mode;
    if (!this.hls) return;
    this.hls.lowLatencyMode = mode === "low";
    this.#holdBack();
    this.#toEdgeBy = mode === "low" && !this.rewound ? performance.now() + TO_EDGE_MS_MAX : null;
    if (mode === "standard" && !this.rewound && this.window) this.#video.currentTime = this.window.live;
  }

  // To a time of the video within `window`.
  seekTo(time) {
    if (!this.window) return;
    const { start, live } = this.window;
    this.rewound = time < live - REWOUND_S;
    this.#video.currentTime = this.rewound ? Math.max(time, start + OLDEST_S) : live;
  }

  seekToEdge() {
    this.rewound = false;
    this.#toEdgeBy = null;
    const position = this.hls ? this.hls.liveSyncPosition : this.#nativeEdge();
    if (!Number.isFinite(position) || position <= this.#video.currentTime) return;
    this.seeksToEdge += 1;
    this.#video.currentTime = position;
  }

  async run() {
    for (;;) {
      let waitMs = PROBE_MS;
      if (await this.#probe()) {
        const why = await this.#play();
        if (why === "levelEmptyError") waitMs = EMPTY_MS;
        if (why === "ended") {
          this.#endedMaster = this.#master;
          this.#set("ended");
        } else if (why === "unsupported") {
          return;
        } else {
          this.#set("waiting", why);
        }
      }
      if (this.state === "denied") waitMs = DENIED_MS;
      await sleep(waitMs * (0.75 + 0.5 * Math.random())); // Viewers of one channel must not come back in step.
    }
  }

  async #probe() {
    try {
      const response = await fetch(this.#source, { cache: "no-store", signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
      const text = await response.text();
      if (response.ok && text === this.#endedMaster) return false; // Still the run that has ended.
      if (response.ok) {
        this.#master = text;
        return true;
      }
      if (response.status === 401 || response.status === 403) this.#set("denied", text.trim());
      else if (response.status < 500) this.#set(this.state === "ended" ? "ended" : "offline");
      else this.#set("waiting", `status ${response.status}`);
    } catch (error) {
      this.#set("unreachable", String(error));
    }
    return false;
  }

  // Play until the run ends or breaks; returns why.
  async #play() {
    const ended = new Promise((resolve) => (this.#finish = resolve));
    this.#seekedAtStart = this.#heldBack = this.rewound = false;
    this.#stalledAt = this.#toEdgeBy = this.#beganAt = null;
    this.starts += 1;
    this.#set("waiting");
    if (globalThis.Hls?.isSupported()) this.#attach();
    else if (this.#video.canPlayType("application/vnd.apple.mpegurl")) this.#video.src = this.#source;
    else {
      this.#set("unsupported", globalThis.Hls ? "" : "hls.js did not load");
      return "unsupported";
    }
    const timer = setInterval(this.#makeWatch(), WATCH_MS);
    const why = await ended;
    clearInterval(timer);
    this.#finish = null;
    this.hls?.destroy();
    this.hls = null;
    this.#video.removeAttribute("src");
    this.#video.load();
    return why;
  }

  #attach() {
    // Stock settings for all that shapes the latency; only memory is bounded more tightly.
    const hls = new globalThis.Hls({
      backBufferLength: 30,
      lowLatencyMode: this.#latencyMode === "low",
      abrController: makeAbrController(globalThis.Hls, this.#roundTrip),
    });
    // A segment counts as whole to it when no more than 0.2 s of it lack: its short last part would be missed for ever, and
    // with it all that follows, where the network brings the playlist that has it before the part before it.
    const tracker = hls.streamController?.fragmentTracker;
    if (tracker && "bufferPadding" in tracker) tracker.bufferPadding = WHOLE_S;
    const { ErrorDetails, ErrorTypes, Events } = globalThis.Hls;
    let mediaErrors = 0;
    hls.on(Events.ERROR, (_, data) => {
      this.errors.push(`${data.details}${data.fatal ? " (fatal)" : ""}`);
      if (this.errors.length > 20) this.errors.shift();
      if (data.details === ErrorDetails.LEVEL_LOAD_ERROR && data.response?.code === 404) this.#findRungs(hls);
      if (!data.fatal) return;
      mediaErrors += 1;
      if (data.type === ErrorTypes.MEDIA_ERROR && mediaErrors === 1) hls.recoverMediaError();
      else this.#finish?.(data.details);
    });
    const passOver = (controller, details) => {
      const buffered = controller?.mediaBuffer?.buffered;
      if (tracker && buffered) passOverBuffered(details.partList, (segment) => tracker.getState(segment), buffered);
    };
    hls.on(Events.LEVEL_UPDATED, (_, { details }) => passOver(hls.streamController, details));
    hls.on(Events.AUDIO_TRACK_UPDATED, (_, { details }) => passOver(hls.audioStreamController, details));
    this.#loadedAt.clear();
    hls.on(Events.FRAG_LOADED, (_, { frag }) => frag.type !== "subtitle" && this.#loadedAt.set(frag.type, performance.now()));
    hls.on(Events.MANIFEST_PARSED, () => this.#video.play().catch(() => {})); // Refused autoplay: the page shows a button.
    hls.loadSource(this.#source);
    hls.attachMedia(this.#video);
    this.hls = hls;
  }

  // A rung that is no longer made has no playlist, and hls.js leaves it at once; which others went with it, or are back, it does
  // not know: the multivariant playlist names those that are made.
  async #findRungs(hls) {
    clearTimeout(this.#missing);
    this.#missing = setTimeout(() => hls === this.hls && this.#findRungs(hls), MISSING_MS);
    try {
      const response = await fetch(this.#source, { cache: "no-store", signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
      const lines = (await response.text()).split("\n").filter((line) => line && !line.startsWith("#"));
      const made = new Set(lines.map((line) => new URL(line, response.url).href));
      if (hls !== this.hls || !hls.levels.some((level) => made.has(level.uri))) return; // Another run, or none.
      for (const level of hls.levels) level.loadError = made.has(level.uri) ? 0 : Math.max(level.loadError, 1);
      if (hls.levels.every((level) => !level.loadError)) clearTimeout(this.#missing);
    } catch {
      // It is asked for again.
    }
  }

  // Look at the picture's progress: stalls are shown, and what stays frozen is begun again.
  #makeWatch() {
    let lastTime = this.#video.currentTime;
    let movedAt = performance.now();
    let began = false;
    return () => {
      const now = performance.now();
      const video = this.#video;
      const moved = video.currentTime !== lastTime;
      if (moved || (video.paused && began)) movedAt = now;
      if (moved && video.readyState >= 2) began = true;
      lastTime = video.currentTime;
      if (began && !video.paused && now - movedAt < STALLED_SHOWN_MS) this.#set("live");
      if (began && now - movedAt >= STALLED_SHOWN_MS) this.#set("stalled");
      if (began && !this.#seekedAtStart) this.#seekAtStart(now);
      else if (began) this.#comeNearer(now);
      if (this.#toEdgeBy !== null && (this.#isEdgeBuffered() || now > this.#toEdgeBy)) this.seekToEdge();
      const idle = now - Math.max(movedAt, Math.min(...this.#loadedAt.values()));
      if (began && !video.paused && idle > IDLE_MS && this.#unloadedS > UNLOADED_S) this.#loadAnew(now);
      if (now - movedAt > (began ? FROZEN_MS : FIRST_PICTURE_MS) && !this.#isRefused()) this.#finish?.("no progress");
    };
  }

  // hls.js asks for nothing though there is more, as when changes of the rung met: it begins anew, where live is.
  #loadAnew(now) {
    for (const kind of this.#loadedAt.keys()) this.#loadedAt.set(kind, now);
    this.errors.push("nothing loaded");
    this.hls.stopLoad();
    this.hls.startLoad(-1);
    this.seekToEdge();
  }

  // Seconds that are listed beyond what is buffered.
  get #unloadedS() {
    return (this.hls?.latestLevelDetails?.edge ?? 0) - this.#video.currentTime - this.bufferS;
  }

  // Autoplay was refused: nothing is broken, the viewer has to press the button.
  #isRefused() {
    return this.#video.paused && this.#video.readyState >= 2;
  }

  // Once, as soon as it is worth it: what was late when the first picture was there may have come later.
  #seekAtStart(now) {
    const behind = this.behindS;
    if (behind === null || this.holdBackS === null) return;
    if (this.#beganAt === null) {
      this.#beganAt = now;
      this.#holdBack();
      const nearer = this.holdBackS - behind;
      if (nearer > NEAR_S && this.#isBuffered(this.#video.currentTime - nearer)) this.#video.currentTime -= nearer;
    }
    const far = behind > FAR_BEHIND * this.holdBackS;
    this.#seekedAtStart = far || now - this.#beganAt > START_MS;
    if (far) this.seekToEdge();
  }

  // Back to live after a stall, unless the viewer wants to be behind.
  #comeNearer(now) {
    const video = this.#video;
    if (this.#calm.forgets(now)) this.#holdBack(true); // hls.js counts stalls anew when it is told.
    let rate = 1;
    if (this.#latencyMode === "low" && !this.rewound && !video.paused && !video.seeking && this.state === "live") {
      const { behindS, holdBackS, bufferS } = this;
      if (behindS !== null && holdBackS !== null) rate = rateFor({ behindS, holdBackS, bufferS, rate: video.playbackRate });
    }
    if (!rate) this.seekToEdge();
    else if (video.playbackRate !== rate) video.playbackRate = rate;
  }

  // Means to be further behind than the server says where the way to it is long for such parts; and no longer, if need be.
  #holdBack(anew = false) {
    const details = this.hls.latestLevelDetails;
    if (!details) return;
    const low = this.#latencyMode === "low";
    const wanted = low ? holdBackFor(details, this.#roundTrip.ms, this.hls.levels.length) : details.holdBack;
    if (!anew && !this.#heldBack && !(low && wanted > details.partHoldBack)) return;
    this.#heldBack = true;
    this.hls.targetLatency = wanted;
  }

  #isBuffered(time) {
    const { buffered } = this.#video;
    return [...Array(buffered.length).keys()].some((i) => buffered.start(i) <= time && time < buffered.end(i));
  }

  #isEdgeBuffered() {
    return this.window !== null && this.#video.currentTime + this.bufferS > this.window.live + this.holdBackS / 2;
  }

  #onWaiting() {
    const starting = this.state !== "live" && this.state !== "stalled";
    if (starting || this.#video.seeking || this.#stalledAt !== null || this.#finish === null) return;
    this.#stalledAt = performance.now();
    this.#calm.stalled(this.#stalledAt);
    this.stalls += 1;
  }

  #onPlaying() {
    this.#stalledAt = null;
  }

  #nativeEdge() {
    const { seekable } = this.#video;
    return seekable.length ? seekable.end(seekable.length - 1) - 1 : null;
  }

  #set(state, reason = "") {
    if (state === this.state && reason === this.reason) return;
    this.state = state;
    this.reason = reason;
    this.#onchange();
  }
}
