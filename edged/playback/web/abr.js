// hls.js's own choice of rungs, mended where it errs about live parts:
//
// - It loads all parts of a segment that are listed already in one go, and looks at the bandwidth at the end of that alone: here it
//   does after each part.
// - It takes the wait for the first byte for the server's, and leaves it out. Behind a slow link most of a part's time is that,
//   as a TLS record comes as a whole: here only the least wait of late is left out, which is the round trip.
// - Its average forgets a fast network over many seconds. A viewer near live has half a second: so a part that took longer than
//   it lasts, with little left to play, counts alone, and what is under way is given up for the lowest rung.

const SHORT_S = 2; // Of buffer: with more there is time for hls.js's own rules.
const SLOW = 1.1; // Times its duration: such a part came slower than it plays.
const CALM_MS = 5_000; // Between two of these.
const WAITS_KEPT = 50; // Parts, about ten seconds of them, of which the least wait counts.

// Whether a player with so much left has to leave its rung now.
export function isTooSlow(tookMs, durationS, bufferS) {
  return bufferS < SHORT_S && tookMs > SLOW * 1000 * durationS;
}

// The lowest rung that is made at present; where none is known to be, hls.js's own lowest.
export function lowestOf({ levels, minAutoLevel }) {
  const found = levels.findIndex((level, index) => index >= minAutoLevel && !level.loadError);
  return found < 0 ? minAutoLevel : found;
}

// The round trip, as the least of the waits for a first byte tells it; 0 while none is known.
export class RoundTrip {
  #waits = [];

  keep(waitMs) {
    this.#waits.push(waitMs);
    if (this.#waits.length > WAITS_KEPT) this.#waits.shift();
  }

  get ms() {
    return this.#waits.length ? Math.min(...this.#waits) : 0;
  }
}

export function makeAbrController(Hls) {
  const { Events } = Hls;
  return class extends Hls.DefaultConfig.abrController {
    #roundTrip = new RoundTrip();
    #calmUntil = 0;

    // hls.js would take the last part of several into account here: each was when it had been loaded.
    onFragBuffered(event, data) {
      const { bwEstimator } = this;
      if (data.part && data.frag.type === "main") {
        this.bwEstimator = Object.create(bwEstimator, { sample: { value: () => {} } });
      }
      super.onFragBuffered(event, data);
      this.bwEstimator = bwEstimator;
    }

    onFragLoaded(event, data) {
      super.onFragLoaded(event, data);
      const { frag, part } = data;
      if (!part || frag.type !== "main") return;
      const { loading, loaded } = part.stats;
      const tookMs = loading.end - loading.start;
      this.#roundTrip.keep(loading.first - loading.start);
      this.bwEstimator.sample(Math.max(1, tookMs - this.#roundTrip.ms), loaded);
      if (isTooSlow(tookMs, part.duration, this.hls.mainForwardBufferInfo?.len ?? Infinity)) {
        this.#flee(frag, part, (8_000 * loaded) / tookMs);
      }
    }

    #flee(frag, part, bps) {
      const { hls } = this;
      const now = performance.now();
      const lowest = lowestOf(hls);
      if (!hls.autoLevelEnabled || hls.media?.paused || frag.level <= lowest || now < this.#calmUntil) return;
      this.#calmUntil = now + CALM_MS;
      this.resetEstimator(bps);
      hls.nextAutoLevel = lowest;
      setTimeout(() => this.#giveUp(frag, part)); // The next part has been asked for by then.
    }

    #giveUp(frag, part) {
      if (!this.hls || this.hls.streamController?.fragCurrent !== frag) return;
      frag.abortRequests();
      this.fragCurrent = this.partCurrent = null;
      this.hls.trigger(Events.FRAG_LOAD_EMERGENCY_ABORTED, { frag, part, stats: frag.stats });
    }
  };
}
