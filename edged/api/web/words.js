// Numbers and states in words.

const formats = []; // By digits: to make one takes as long as to use it a hundred times.
export function number(value, digits = 0) {
  formats[digits] ??= new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return formats[digits].format(value);
}

// Bits per second as a number and its unit.
export function bits(bps) {
  const [value, unit] = bps >= 9.995e8 ? [bps / 1e9, "Gbps"] : [bps / 1e6, "Mbps"];
  return [number(value, value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2), unit];
}

export const rate = (bps) => bits(bps).join("\u00a0");

export function bytes(count) {
  if (count >= 2 ** 30) return `${number(count / 2 ** 30, 1)}\u00a0GiB`;
  return `${number(count / 2 ** 20, count >= 100 * 2 ** 20 ? 0 : 1)}\u00a0MiB`;
}

export function ms(value) {
  if (value === null || value === undefined) return "–";
  return `${number(value, value < 10 ? 1 : 0)}\u00a0ms`;
}

export function duration(seconds) {
  const whole = Math.floor(seconds);
  const [days, hours, minutes, rest] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  if (days) return `${days}\u00a0d ${hours}:${two(minutes)}\u00a0h`;
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

export function ago(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)}\u00a0s`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)}\u00a0min` : `${number(seconds / 3600, 1)}\u00a0h`;
}

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

const CODECS = { h264: "H.264", h265: "HEVC", av1: "AV1", vp8: "VP8", vp9: "VP9", aac: "AAC", opus: "Opus" };
export const codec = (name) => CODECS[name] ?? name;

/** Size and codec; `rate` too, where no column of its own has it. */
export function picture(stream, { rate: withRate = true } = {}) {
  const video = stream.tracks.find((track) => track.kind === "video");
  if (!video) return stream.tracks.length ? "sound only" : "";
  const fps = withRate && video.fps ? `\u2009@\u2009${number(video.fps, Number.isInteger(video.fps) ? 0 : 2)}` : "";
  return `${video.width ? `${video.width}×${video.height}${fps} ` : ""}${codec(video.codec)}`;
}

export function sound(stream) {
  const track = stream.tracks.find((one) => one.kind === "audio");
  if (!track) return "none";
  const channels = track.channels === 2 ? "stereo" : track.channels === 1 ? "mono" : track.channels ? `${track.channels} channels` : "";
  return [codec(track.codec), track.sample_rate ? `${number(track.sample_rate / 1000, track.sample_rate % 1000 ? 1 : 0)}\u00a0kHz` : "", channels].filter(Boolean).join(" ");
}

export const shorten = (value, most) => (value.length <= most ? value : `${value.slice(0, most - 1)}…`);
