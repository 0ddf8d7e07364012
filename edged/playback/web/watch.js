// The watch page: the player's state and figures on the page, the controls, and `window.edged` for tests.

import { ServerClock } from "./clock.js";
import { Menu, rememberedLatency, rungText } from "./menu.js";
import { channelOf, Player } from "./player.js";

const UPDATE_MS = 250;
const TITLE_MS = 10_000;
const FAR_S = 3; // Behind the target by more: the page offers the way back.
const IDLE_MS = 3_000; // Without a move of the pointer: the controls go.
const LATENCY_SMOOTHING = 0.3; // Weight of the newest of four samples a second.
const REWIND_S_MIN = 10; // A stream that can be gone back in by less has no seek bar.
const STEP_S = 5; // Of the arrow keys.
const PROTOCOLS = { h2: "HTTP/2", h3: "HTTP/3", "http/1.1": "HTTP/1.1" };
const $ = (id) => document.getElementById(id);

const channel = channelOf(location.pathname);
const video = $("video");
const stage = $("stage");
const clock = new ServerClock();
// A protected channel's token: the playlist's own URLs carry it on, so that hls.js need not know of it.
const token = new URLSearchParams(location.search).get("token");
const query = token ? `?token=${encodeURIComponent(token)}` : "";
const source = `/live/${encodeURIComponent(channel)}/master.m3u8${query}`;
const player = new Player(video, source, showState, rememberedLatency());
const menu = new Menu(player);
let title = "";
let latencyMs = null;
let shownState = null;
let idleTimer = 0;
let firstFrameMs = null; // From the navigation to the first picture.
let protocol = null; // By which the media comes, as the browser names it.
let seeking = false; // The viewer has the seek bar in hand.

const TEXTS = {
  waiting: ["Connecting", "Connecting", "Waiting for the first picture."],
  live: ["Live", "", ""],
  stalled: ["Stalled", "Waiting for the stream", "The picture goes on as soon as more of it arrives."],
  offline: ["Offline", "{} is offline", "The picture appears here by itself when the channel goes live."],
  denied: ["No access", "This link is not valid, or no longer", ""],
  ended: ["Ended", "The stream has ended", "The picture comes back by itself when the channel is live again."],
  unreachable: ["No connection", "No answer from the server", "This page tries again by itself."],
  unsupported: ["Not playable", "This browser can't play the stream", "It needs Media Source Extensions, or HLS of its own."],
};

function showState() {
  const { state } = player;
  if (state === "live" && state !== shownState) fetchTitle(); // A new run may have a new title.
  shownState = state;
  const [badge, head, text] = TEXTS[state];
  stage.dataset.state = state;
  $("badge").dataset.state = state;
  $("badge-text").textContent = badge;
  $("veil-head").textContent = head.replace("{}", title || channel);
  $("veil-text").textContent = state === "denied" ? player.reason : text;
  $("veil").setAttribute("aria-hidden", String(state === "live"));
  const playable = state === "live" || state === "stalled";
  $("bar").hidden = !playable;
  if (!playable) latencyMs = null;
  showControls();
}

function showControls() {
  const playable = player.state === "live" || player.state === "stalled";
  stage.classList.toggle("paused", video.paused);
  stage.classList.toggle("muted", video.muted);
  $("unmute").hidden = !(video.muted && playable);
  $("start").hidden = !(video.paused && video.readyState >= 2 && !video.ended);
  $("play").setAttribute("aria-label", video.paused ? "Play" : "Pause");
  $("mute").setAttribute("aria-label", video.muted ? "Unmute" : "Mute");
  $("mute").setAttribute("aria-pressed", String(video.muted));
}

function wakeControls() {
  stage.classList.remove("idle");
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => stage.classList.add("idle"), IDLE_MS);
}

function showTitle() {
  $("title").textContent = title || channel;
  $("channel").textContent = title ? channel : "";
  $("channel").hidden = !title;
  document.title = `${title || channel} · edged`;
}

function measure() {
  const playingMs = player.state === "live" && !video.paused ? player.playingMs : null;
  if (playingMs === null || !clock.known) return;
  const now = clock.nowMs() - playingMs;
  // A jump (a seek, a stall) is shown at once; only jitter is smoothed.
  const jump = latencyMs === null || Math.abs(now - latencyMs) > 500;
  latencyMs = jump ? now : latencyMs + LATENCY_SMOOTHING * (now - latencyMs);
}

function rungName() {
  const { rung } = player;
  const height = rung?.height || video.videoHeight;
  return height ? rungText(height, rung?.frameRate) : null;
}

function timeText(seconds) {
  const whole = Math.round(seconds);
  const pad = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return `${hours ? `${hours}:${pad(minutes)}` : minutes}:${pad(whole % 60)}`;
}

// The bar spans what the playlist lists; its end is live.
function showSeek(playing) {
  const range = player.window;
  const bar = $("seek-at");
  $("seek").hidden = !(playing && range && range.live - range.start >= REWIND_S_MIN);
  if ($("seek").hidden) return;
  bar.min = (range.start - range.live).toFixed(1);
  bar.max = 0;
  if (!seeking) bar.value = Math.min(0, video.currentTime - range.live).toFixed(1);
  const behind = -Number(bar.value);
  const text = behind < 2 ? "Live" : `−${timeText(behind)}`;
  $("seek-text").textContent = text;
  bar.setAttribute("aria-valuetext", behind < 2 ? "live" : `${timeText(behind)} behind live`);
  bar.style.setProperty("--done", `${100 * (1 - behind / -Number(bar.min))}%`);
}

function seekBar() {
  seeking = false;
  const range = player.window;
  if (range) player.seekTo(range.live + Number($("seek-at").value));
}

function step(seconds) {
  if ($("seek").hidden) return;
  player.seekTo(video.currentTime + seconds);
}

function snapshot() {
  const quality = video.getVideoPlaybackQuality?.() ?? {};
  return {
    state: player.state,
    reason: player.reason,
    channel,
    title,
    latencyMs: latencyMs === null ? null : Math.round(latencyMs),
    behindS: player.behindS,
    holdBackS: player.holdBackS,
    bufferS: player.bufferS,
    stalls: player.stalls,
    seeksToEdge: player.seeksToEdge,
    starts: player.starts,
    latencyMode: player.latencyMode,
    rewound: player.rewound,
    window: player.window,
    bandwidthBps: player.bandwidthBps,
    protocol,
    firstFrameMs,
    droppedFrames: quality.droppedVideoFrames ?? 0,
    totalFrames: quality.totalVideoFrames ?? 0,
    width: video.videoWidth,
    height: video.videoHeight,
    rung: rungName(),
    currentTime: video.currentTime,
    muted: video.muted,
    paused: video.paused,
    clockOffsetMs: clock.known ? clock.best.offsetMs : null,
    clockRttMs: clock.known ? clock.best.rttMs : null,
    hlsVersion: globalThis.Hls?.version ?? null,
    errors: [...player.errors],
  };
}

function update() {
  measure();
  const stats = snapshot();
  const playing = stats.state === "live" || stats.state === "stalled";
  $("latency").textContent = stats.latencyMs === null ? "–" : stats.latencyMs.toLocaleString("en");
  $("buffer").textContent = playing ? stats.bufferS.toFixed(1) : "–";
  $("stalls").textContent = stats.stalls;
  $("dropped").textContent = stats.droppedFrames;
  $("rung").title = playing && stats.width ? `${stats.width}×${stats.height}` : "";
  $("rung").textContent = (playing && stats.rung) || "–";
  $("bandwidth").textContent = playing && stats.bandwidthBps ? (stats.bandwidthBps / 1e6).toFixed(1) : "–";
  $("protocol").textContent = (protocol && (PROTOCOLS[protocol] ?? protocol)) || "–";
  const far = stats.behindS !== null && stats.holdBackS !== null && stats.behindS > stats.holdBackS + FAR_S;
  $("to-live").hidden = !(playing && (far || stats.rewound));
  menu.update(playing ? stats.rung : null);
  showSeek(playing);
  showControls();
}

async function fetchTitle() {
  try {
    const address = `/streams/${encodeURIComponent(channel)}.json`;
    const response = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(TITLE_MS) });
    const live = response.ok ? await response.json() : null;
    if (live && live.title !== title) {
      title = live.title;
      showTitle();
      showState();
    }
  } catch {
    // The title can wait.
  }
}

function toggleMute() {
  video.muted = !video.muted;
  showControls();
}

function togglePlay() {
  if (!video.paused) {
    video.pause();
    return;
  }
  // Live is live: after a pause it goes on at the edge, not where it was left; unless the viewer had gone back.
  if (video.played.length && !player.rewound) player.seekToEdge();
  video.play().catch(() => {});
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (stage.requestFullscreen) stage.requestFullscreen().catch(() => {});
  else video.webkitEnterFullscreen?.(); // iPhones have it on the video only.
}

const KEYS = {
  m: toggleMute,
  k: togglePlay,
  f: toggleFull,
  s: () => menu.toggle(),
  l: () => player.seekToEdge(),
  ArrowLeft: () => step(-STEP_S),
  ArrowRight: () => step(STEP_S),
};

$("unmute").addEventListener("click", toggleMute);
$("mute").addEventListener("click", toggleMute);
$("play").addEventListener("click", togglePlay);
$("start").addEventListener("click", togglePlay);
$("full").addEventListener("click", toggleFull);
$("to-live").addEventListener("click", () => player.seekToEdge());
$("seek-at").addEventListener("input", () => (seeking = true));
$("seek-at").addEventListener("change", seekBar);
for (const event of ["play", "pause", "volumechange", "loadeddata"]) video.addEventListener(event, showControls);
for (const event of ["pointermove", "pointerdown", "keydown"]) stage.addEventListener(event, wakeControls);
document.addEventListener("keydown", (event) => {
  if (!event.ctrlKey && !event.metaKey && !event.altKey && event.target.tagName !== "INPUT") KEYS[event.key]?.();
});
video.requestVideoFrameCallback?.((now) => (firstFrameMs = now));
// By an observer: the browser's own list of loads is full after 250.
new PerformanceObserver((list) => {
  const media = list.getEntries().filter((each) => each.name.includes("/live/") && each.nextHopProtocol);
  protocol = media.at(-1)?.nextHopProtocol ?? protocol;
}).observe({ type: "resource", buffered: true });

window.edged = { snapshot, player, clock, video };
showTitle();
showState();
wakeControls();
setInterval(update, UPDATE_MS);
clock.run();
fetchTitle();
setInterval(fetchTitle, TITLE_MS);
player.run();
