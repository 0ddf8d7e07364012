// How a viewer who has fallen behind comes back to where live is: played a little faster, which nobody hears; from far away by
// one jump. And how far from live is enough where the picture has stood still: hls.js holds a second more back for each time,
// for ever. Here that is forgotten after a while without, each time after longer.

const BEGIN_S = 0.4; // Farther than one means to be by more than this: faster,
const END_S = 0.1; // until no more than this is left.
const FASTER = 1.05;
const FASTEST = 1.1; // While it is more than
const FASTEST_S = 2;
const JUMP_S = 12; // From there on it would take minutes.
const BUFFER_SHARE = 0.6; // Of the hold-back, that has to be buffered: what is not there cannot be played faster,
const BUFFER_S_MIN = 0.25; // and this at least.
const CALM_MS = 30_000; // After one stall; after another soon afterwards twice as long,
const CALM_MS_MAX = 600_000; // and so on, up to this.

// The rate to play at, of a player that plays at `rate` now; 0: it is time to jump.
export function rateFor({ behindS, holdBackS, bufferS, rate }) {
  const excessS = behindS - holdBackS;
  if (excessS > JUMP_S) return 0;
  if (excessS < (rate > 1 ? END_S : BEGIN_S) || bufferS < Math.max(BUFFER_S_MIN, BUFFER_SHARE * holdBackS)) return 1;
  return excessS > FASTEST_S ? FASTEST : FASTER;
}

// When stalls are forgotten. Times are in ms.
export class Calm {
  #calmMs = CALM_MS;
  #stalledAt = null; // The last one that still counts.
  #forgottenAt = -Infinity;

  stalled(now) {
    if (this.#stalledAt === null) {
      const soon = now - this.#forgottenAt < CALM_MS_MAX;
      this.#calmMs = soon ? Math.min(2 * this.#calmMs, CALM_MS_MAX) : CALM_MS;
    }
    this.#stalledAt = now;
  }

  // Whether now is the time to forget them.
  forgets(now) {
    if (this.#stalledAt === null || now - this.#stalledAt < this.#calmMs) return false;
    this.#stalledAt = null;
    this.#forgottenAt = now;
    return true;
  }
}
