// hls.js's own choice of rungs, mended where it errs about live parts:
//
// - It loads all parts of a segment that are listed already in one go, and looks at the bandwidth at the end of that alone:
//   here it does after each part.
// - It takes the wait for the first byte for the server's, and leaves it out. Behind a slow link most of a part's time is that,
//   as a TLS record comes as a whole: here only the least wait of late is left out, which is the round trip.
// - Its average forgets a fast network over many seconds. A viewer near live has half a second: so a part that takes longer than
//   it lasts counts alone, while it is still under way, and the lowest rung is changed to as long as what is left to play
//   suffices for that. What has been asked for is in the network's queues by then, and is not given up; but a part that begins
//   with a key frame is: the other rung's follows in its stead.
// - It changes rungs at any part, back to the last key frame. A browser that has decoded beyond that shows the old picture until
//   the next one comes: here a change waits for a part that begins with a key frame, where there is time for that.
// - A change of mind while the other rung's playlist is on its way made it take the old one's, which it has already, for one that
//   stands still, and wait for two seconds: here a change that has begun comes to its end.

const SLOW = 1.1; // Times its duration: such a part comes slower than it plays.
const LOOK_MS = 30; // Between two looks at the part that is under way.
const SIGN_MS = 80; // Beyond the round trip: no part is judged sooner.
const RECORD_BYTES = 16 * 1024; // Of TLS: while not even one has come, no more than that has.
const UP_SPARE = 2; // Times what a better rung takes at most there has to be (the sound takes its share, too), while
const UP_SHARE = 0.7; // Of the bandwidth, that a better rung can count on.
const NEAR_S = 2; // no more than this is buffered.
const FLEE_TRIPS = 3; // For a playlist, an init and the first part.
const FLEE_SPARE_S = 0.15;
const CHANGE_MS = 1_500; // That a change may take; then it is thought over.
const ROUNDED_S = 0.001; // Times of parts are sums.
const CALM_MS = 1_500; // Between two of these: by then it has come to that rung, and may have left it again.
const FAR_MS = 33; // Apple wants three round trips, at least, in a part: our shortest are of 100 ms.
const LOST_MS = 1_000; // One packet twice, 200 ms and then 400, TCP's least timeout; and two that wait for what it held up.
const SHORT_PART_S = 0.15;
const HOLD_BACK_S_MAX = 1.3;
const WAITS_KEPT = 50; // Parts, about ten seconds of them, of which the least wait counts.

// Whether a part comes slower than it plays.
export function isTooSlow(tookMs, durationS) {
  return tookMs > SLOW * 1000 * durationS;
}

// How many seconds changing to another rung takes: what is in the queues comes first, then what makes the picture whole.
export function fleeS({ leftBytes, neededBytes, bytesPerMs, roundTripMs }) {
  return ((leftBytes + neededBytes) / bytesPerMs + FLEE_TRIPS * roundTripMs) / 1000 + FLEE_SPARE_S;
}

// Bytes per millisecond of a part that has come. Behind a slow link all of it came slowly; a lost packet holds up only what is
// behind it, or all before the first byte.
export function rateOf({ loading: { start, first, end }, loaded }, roundTripMs) {
  const record = Math.min(loaded, RECORD_BYTES);
  const rates = [record / Math.max(first - start - roundTripMs, 1)];
  if (loaded > record) rates.push((loaded - record) / Math.max(end - first, 1));
  return Math.max(...rates);
}

// The part of a segment that has been asked for and is not there yet.
export function partUnderWay(parts, sn) {
  const isUnderWay = ({ loading, aborted }) => loading.start && !loading.end && !aborted;
  return parts?.findLast(({ fragment, stats }) => fragment.sn === sn && isUnderWay(stats));
}

// How many seconds of another rung are needed for a picture at `time`: from the last key frame before it to the newest part.
function neededS({ partList, partEnd }, time) {
  const from = partList.findLast((part) => part.independent && part.start <= time + ROUNDED_S) ?? partList[0];
  return Math.max(partEnd - from.start, 0);
}

// When the next key frame is due, if all are as far from each other as the last two; null while nobody knows.
export function nextKeyStart(parts) {
  const keys = parts.filter((part) => part.independent).map((part) => part.start);
  return keys.length > 1 ? 2 * keys.at(-1) - keys.at(-2) : null;
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

// Seconds behind live that a player means to be: as the server says, and more for what it cannot know.
// - A packet that TCP has lost comes 200 ms and a round trip later, and lost once more 600 ms and two, and a part waits for a
//   playlist, a request and itself: for who is far away room for that is made here.
// - Of several rungs one may have to be left at once, and the part that tells so comes late by as much as it lasts. Where parts are
//   of 100 ms nothing is added: who wants those wants to be near.
export function holdBackFor({ partTarget, partHoldBack }, roundTripMs, rungs) {
  if (!partTarget) return partHoldBack;
  const lostS = roundTripMs > FAR_MS ? (LOST_MS + 2 * roundTripMs) / 1_000 : 0;
  const slowS = rungs > 1 && partTarget > SHORT_PART_S ? 1.25 * partTarget : 0;
  return Math.max(partHoldBack, Math.min(partHoldBack + Math.max(lostS, slowS), HOLD_BACK_S_MAX));
}

export function makeAbrController(Hls, roundTrip) {
  const { Events } = Hls;
  return class extends Hls.DefaultConfig.abrController {
    #calmUntil = 0;
    #level = -1; // That the last part is of,
    #last = null; // and its place: its segment's number and its own; null after a whole segment.
    #change = null; // That is under way: the rung, and since when.
    #stays = false; // Another is wanted, at the next key frame.
    #fledTo = Infinity; // Until a part of that rung has come.
    #timer;

    constructor(hls) {
      super(hls);
      this.#timer = setInterval(() => this.#look(), LOOK_MS);
    }

    destroy() {
      clearInterval(this.#timer);
      super.destroy();
    }

    get nextAutoLevel() {
      const wanted = super.nextAutoLevel;
      const chosen = this.#choose(wanted);
      this.#stays = chosen !== wanted;
      return chosen;
    }

    #choose(wanted) {
      const level = this.#level;
      if (!this.hls?.levels[level]) return wanted; // None has come, or hls.js has left some out.
      const begun = this.#begunChange();
      if (begun >= 0) return wanted < Math.min(begun, this.#isFleeing(begun) ? begun : level) ? wanted : begun;
      if (wanted === level || this.hls.levels[level].loadError) return wanted;
      if (wanted > level) return this.#isAtKeyFrame() ? this.#bestInTime(wanted) : level;
      return this.#isFleeing(level) || this.#isAtKeyFrame() || !this.#canFinish() ? wanted : level;
    }

    // Whether that rung is being left because the network has become slow. Not for long, and not for who has chosen a rung: if the
    // other one does not come, or is not wanted any more, nothing else is to be given up for it.
    #isFleeing(level) {
      return level > this.#fledTo && this.hls.autoLevelEnabled && performance.now() < this.#calmUntil;
    }

    // hls.js sets what it has just asked for, and asks anew only when a part has come: who stays until a key frame is listed has
    // not made up his mind.
    set nextAutoLevel(level) {
      if (!this.#stays || level !== this.#level) super.nextAutoLevel = level;
    }

    // The rung that hls.js has begun to change to, while nothing of it has come; else -1, as where it cannot be had.
    #begunChange() {
      const { loadLevel, levels } = this.hls;
      if (!levels[loadLevel] || levels[loadLevel].loadError || loadLevel === this.#level) {
        this.#change = null;
        return -1;
      }
      const now = performance.now();
      if (this.#change?.level !== loadLevel) this.#change = { level: loadLevel, at: now };
      return now - this.#change.at < CHANGE_MS ? loadLevel : -1;
    }

    // Whether a key frame is next, and is listed: another rung can go on from there, and nothing is decoded twice.
    #isAtKeyFrame() {
      const list = this.hls.levels[this.#level].details?.partList;
      const last = this.#last;
      const at = last && list ? list.findIndex(({ fragment, index }) => fragment.sn === last.sn && index === last.index) : -1;
      return at < 0 || list[at + 1]?.independent === true;
    }

    // Whether this rung's pictures up to its next key frame come before what is buffered runs out.
    #canFinish() {
      const { levels, mainForwardBufferInfo: buffer } = this.hls;
      const { details, maxBitrate } = levels[this.#level];
      if (!buffer || !details?.partList) return false;
      const leftS = Math.max((nextKeyStart(details.partList) ?? Infinity) - buffer.end, 0);
      const lateS = leftS * Math.max(maxBitrate / this.bwEstimator.getEstimate() - 1, 0);
      const bytesPerMs = maxBitrate / 8_000; // Nothing is in its way by then.
      return buffer.len - lateS > fleeS({ leftBytes: 0, neededBytes: 0, bytesPerMs, roundTripMs: roundTrip.ms }) + details.partTarget;
    }

    // The best rung up to the wanted one that comes in time, of those that are made and need no other decoder; else that of now.
    #bestInTime(wanted) {
      const { levels } = this.hls;
      const { codecSet } = levels[this.#level];
      for (let best = wanted; best > this.#level; best -= 1) {
        const isOne = best === wanted || (!levels[best].loadError && levels[best].codecSet === codecSet);
        if (isOne && this.#hasTimeFor(best)) return best;
      }
      return this.#level;
    }

    // Whether what it needs first, back to its key frame, comes before what is buffered has been played.
    #hasTimeFor(wanted) {
      const { levels, mainForwardBufferInfo: buffer } = this.hls;
      const { details, loadError } = levels[this.#level] ?? {};
      if (!details?.partList?.length || loadError || !buffer) return true;
      const seconds = neededS(details, buffer.end) + details.partTarget; // One more is made meanwhile.
      const bps = this.bwEstimator.getEstimate();
      const { maxBitrate } = levels[wanted];
      if (buffer.len < NEAR_S && bps < UP_SPARE * maxBitrate) return false;
      const neededBytes = (seconds * maxBitrate) / 8;
      const bytesPerMs = (UP_SHARE * bps) / 8_000;
      return buffer.len > fleeS({ leftBytes: 0, neededBytes, bytesPerMs, roundTripMs: roundTrip.ms });
    }

    // hls.js would take the last part of several into account here: each was when it had been loaded.
    onFragBuffered(event, data) {
      const { bwEstimator } = this;
      if (data.part && data.frag.type === "main") {
        this.bwEstimator = Object.create(bwEstimator, { sample: { value: () => {} } });
      }
      super.onFragBuffered(event, data);
      this.bwEstimator = bwEstimator;
      if (data.part && data.frag.type === "main" && this.#isFleeing(data.frag.level)) this.#giveUp(data.frag, data.part);
    }

    onFragLoaded(event, data) {
      super.onFragLoaded(event, data);
      const { frag, part } = data;
      if (frag.type === "main") {
        this.#level = frag.level;
        this.#last = part ? { sn: frag.sn, index: part.index } : null;
      }
      if (!part || frag.type !== "main") return;
      const { loading, loaded } = part.stats;
      const tookMs = loading.end - loading.start;
      roundTrip.keep(loading.first - loading.start);
      this.bwEstimator.sample(Math.max(1, tookMs - roundTrip.ms), loaded);
      // Another one would take as long, and is not begun unless there is time for that, too.
      const rate = rateOf(part.stats, roundTrip.ms);
      if (isTooSlow(roundTrip.ms + loaded / rate, part.duration)) this.#fleeInTime(frag, rate, loaded);
      if (this.#isFleeing(frag.level)) this.#hideNext(frag, part);
      else this.#fledTo = Infinity;
    }

    // hls.js asks for the next part as soon as this returns, if it is listed; it is not to.
    #hideNext(frag, part) {
      const list = this.hls.levels[frag.level]?.details?.partList;
      const at = list?.findIndex(({ fragment, index }) => fragment.sn === frag.sn && index === part.index + 1) ?? -1;
      if (at < 0) return;
      const later = list.splice(at);
      queueMicrotask(() => list.push(...later));
    }

    // Where the network has become slow while a part is under way.
    #look() {
      const frag = this.hls?.streamController?.fragCurrent;
      const level = frag && this.hls.levels?.[frag.level];
      const part = level && partUnderWay(level.details?.partList, frag.sn);
      if (!part) return;
      const { loading, loaded, total } = part.stats;
      const spentMs = performance.now() - loading.start - roundTrip.ms;
      if (spentMs < SIGN_MS) return;
      const bytes = total || Math.round((level.maxBitrate * part.duration) / 8);
      const came = loaded || Math.min(bytes, RECORD_BYTES);
      const rate = came / spentMs;
      if (!isTooSlow(roundTrip.ms + bytes / rate, part.duration)) return;
      this.#fleeInTime(frag, rate, bytes - loaded);
      const isParsing = this.hls.streamController.state !== "FRAG_LOADING";
      if (part.independent && !isParsing && this.#isFleeing(frag.level)) this.#giveUp(frag, part);
    }

    // Not before it must be: a packet that was lost makes one part late, and no network slow.
    #fleeInTime(frag, bytesPerMs, leftBytes) {
      const { hls } = this;
      const lowest = lowestOf(hls);
      const now = performance.now();
      if (!hls.autoLevelEnabled || hls.media?.paused || frag.level <= lowest || now < this.#calmUntil) return;
      const { details } = hls.levels[frag.level];
      const buffer = hls.mainForwardBufferInfo;
      if (!details?.partList?.length || !buffer) return;
      const neededBytes = (neededS(details, buffer.end) * hls.levels[lowest].maxBitrate) / 8;
      if (buffer.len > fleeS({ leftBytes, neededBytes, bytesPerMs, roundTripMs: roundTrip.ms })) return;
      this.#calmUntil = now + CALM_MS;
      this.#fledTo = lowest;
      this.resetEstimator(8_000 * bytesPerMs);
      this.#stays = false;
      hls.nextAutoLevel = lowest; // From the next part on: hls.js stands still if it gives one up while it parses another.
    }

    #giveUp(frag, part) {
      const { hls } = this;
      if (hls?.streamController?.fragCurrent !== frag || !partUnderWay(hls.levels[frag.level].details?.partList, frag.sn)) return;
      frag.abortRequests();
      this.fragCurrent = this.partCurrent = null;
      hls.trigger(Events.FRAG_LOAD_EMERGENCY_ABORTED, { frag, part, stats: frag.stats });
    }
  };
}
