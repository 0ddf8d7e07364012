// What hls.js has forgotten of parts that it has: it would ask for nothing any more.
//
// Where its back buffer is trimmed while it loads several parts of a segment, it forgets that it has loaded them; and those before
// a change of rungs it never had of the new one. A browser rounds the end of what is buffered down by a microsecond, so hls.js
// takes the segment that ends there for the one that is next; it has all of it, and waits for parts of it all the same. It passes
// over those that are gaps.

const ROUNDED_S = 0.001;

// Has hls.js pass over parts of segments that it knows to be whole, as far as they are buffered.
// - `stateOf`: hls.js's own state of a segment; `buffered`: TimeRanges.
export function passOverBuffered(parts, stateOf, buffered) {
  for (const part of parts ?? []) {
    if (part.loaded || part.gap || stateOf(part.fragment) !== "OK") continue;
    for (let i = 0; i < buffered.length; i++) {
      if (buffered.start(i) <= part.start + ROUNDED_S && part.end <= buffered.end(i) + ROUNDED_S) part.gap = true;
    }
  }
}
