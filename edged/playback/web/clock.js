// The server's clock, as seen from here: the browser's own corrected by the best of several round trips to /time.

const SAMPLES_AT_START = 6;
const SAMPLES_KEPT_MAX = 16; // The best of these counts; older ones go, as clocks drift.
const DRIFT_MS_MAX = 50; // Of two clocks in the 5 minutes that the samples span: 150 ppm.
const EARLY_MS = 150;
const LATER_MS = 20_000;
const TIMEOUT_MS = 3_000;

export class ServerClock {
  #samples = [];
  #taken = 0;

  // Monotonic, so that a step of the browser's wallclock between two samples changes nothing.
  static browserMs() {
    return performance.timeOrigin + performance.now();
  }

  get known() {
    return this.#samples.length > 0;
  }

  get best() {
    return this.#samples.reduce((a, b) => (b.rttMs < a.rttMs ? b : a), { offsetMs: 0, rttMs: Infinity });
  }

  nowMs() {
    return ServerClock.browserMs() + this.best.offsetMs;
  }

  async run() {
    for (;;) {
      await this.#sample();
      const wait = this.#taken < SAMPLES_AT_START ? EARLY_MS : LATER_MS;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  // A sample is off by half its round trip at most. One that contradicts the best by more than that tells that a clock
  // has leapt, as the browser's does while a laptop sleeps: what came before it is void.
  #keep(sample) {
    const { offsetMs, rttMs } = this.best;
    if (Math.abs(sample.offsetMs - offsetMs) > (sample.rttMs + rttMs) / 2 + DRIFT_MS_MAX) this.#samples = [];
    this.#samples.push(sample);
    if (this.#samples.length > SAMPLES_KEPT_MAX) this.#samples.shift();
  }

  async #sample() {
    this.#taken += 1;
    const sentMs = ServerClock.browserMs();
    try {
      const response = await fetch("/time", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
      const text = response.ok ? await response.text() : "";
      const gotMs = ServerClock.browserMs();
      const serverMs = Number.parseFloat(text); // Milliseconds since 1970.
      if (!Number.isFinite(serverMs)) return;
      this.#keep({ offsetMs: serverMs - (sentMs + gotMs) / 2, rttMs: gotMs - sentMs });
    } catch {
      // Unreachable for now: the samples so far still hold.
    }
  }
}
