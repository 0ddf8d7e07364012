// The watch page: the player's state and figures on the page, the controls, and `window.edged` for tests.

import { ServerClock } from "./clock.js";
import { channelOf, Player } from "./player.js";

const UPDATE_MS = 250;
const TITLE_MS = 10_000;
const FAR_S = 3; // Behind the target by more: the page offers the way back.
const IDLE_MS = 3_000; // Without a move of the pointer: the controls go.
const LATENCY_SMOOTHING = 0.3; // Weight of the newest of four samples a second.
const CODECS = { avc1: "H.264", avc3: "H.264", hvc1: "HEVC", hev1: "HEVC", av01: "AV1", vp09: "VP9" };
const $ = (id) => document.getElementById(id);

const channel = channelOf(location.pathname);
const video = $("video");
const stage = $("stage");
const clock = new ServerClock();
// A protected channel's token: the playlist's own URLs carry it on, so that hls.js need not know of it.
const token = new URLSearchParams(location.search).get("token");
const query = token ? `?token=${encodeURIComponent(token)}` : "";
const player = new Player(video, `/live/${encodeURIComponent(channel)}/master.m3u8${query}`, showState);
let title = "";
let latencyMs = null;
let shownState = null;
let idleTimer = 0;

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

function rungName(rung = player.rung) {
  const height = rung?.height || video.videoHeight;
  if (!height) return null;
  const fps = Math.round(rung?.frameRate || 0);
  return `${height}p${fps || ""}`;
}

// Rungs of one size, in different codecs, are told apart by those.
function rungLabels(rungs) {
  const names = rungs.map(([, rung]) => rungName(rung) ?? `${Math.round(rung.bitrate / 1000)} kbps`);
  return rungs.map(([, rung], i) => {
    const alone = names.indexOf(names[i]) === names.lastIndexOf(names[i]);
    return alone ? names[i] : `${names[i]} ${CODECS[rung.videoCodec?.slice(0, 4)] ?? Math.round(rung.bitrate / 1000)}`;
  });
}

function languageLabel({ name, lang }) {
  try {
    // The server names a rendition by its language where the broadcaster gave it no other name.
    return lang && name === lang ? new Intl.DisplayNames(navigator.language, { type: "language" }).of(lang) : name;
  } catch {
    return name;
  }
}

// Fill a menu if its choices have changed; hidden where there is nothing to choose.
function showMenu(menu, choices, chosen) {
  const shape = JSON.stringify(choices);
  menu.parentElement.hidden = choices.length === 0;
  if (menu.dataset.shape !== shape) {
    menu.dataset.shape = shape;
    menu.replaceChildren(...choices.map(([value, label]) => new Option(label, value)));
  }
  menu.value = String(chosen);
}

function showMenus() {
  const { rungs, languages } = player;
  const labels = rungLabels(rungs);
  const quality = rungs.map(([index], i) => [index, labels[i]]);
  showMenu($("quality"), quality.length ? [[-1, "Auto"], ...quality] : [], player.chosenRung);
  showMenu($("language"), languages.map(([index, track]) => [index, languageLabel(track)]), player.chosenLanguage);
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
  $("resolution").textContent = playing && stats.width ? `${stats.width}×${stats.height}` : "–";
  $("rung").textContent = (playing && stats.rung) || "–";
  const far = stats.behindS !== null && stats.holdBackS !== null && stats.behindS > stats.holdBackS + FAR_S;
  $("to-live").hidden = !(playing && far);
  showMenus();
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
  // Live is live: after a pause it goes on at the edge, not where it was left.
  if (video.played.length) player.seekToEdge();
  video.play().catch(() => {});
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (stage.requestFullscreen) stage.requestFullscreen().catch(() => {});
  else video.webkitEnterFullscreen?.(); // iPhones have it on the video only.
}

$("quality").addEventListener("change", (event) => player.chooseRung(Number(event.target.value)));
$("language").addEventListener("change", (event) => player.chooseLanguage(Number(event.target.value)));

const KEYS = { m: toggleMute, k: togglePlay, f: toggleFull };

$("unmute").addEventListener("click", toggleMute);
$("mute").addEventListener("click", toggleMute);
$("play").addEventListener("click", togglePlay);
$("start").addEventListener("click", togglePlay);
$("full").addEventListener("click", toggleFull);
$("to-live").addEventListener("click", () => player.seekToEdge());
for (const event of ["play", "pause", "volumechange", "loadeddata"]) video.addEventListener(event, showControls);
for (const event of ["pointermove", "pointerdown", "keydown"]) stage.addEventListener(event, wakeControls);
document.addEventListener("keydown", (event) => {
  if (!event.ctrlKey && !event.metaKey && !event.altKey && event.target.tagName !== "SELECT") KEYS[event.key]?.();
});

window.edged = { snapshot, player, clock, video };
showTitle();
showState();
wakeControls();
setInterval(update, UPDATE_MS);
clock.run();
fetchTitle();
setInterval(fetchTitle, TITLE_MS);
player.run();
