"""How many bits a second a ladder's rungs get where its source has few.

A rung that had more than its source would show no more, and a player that flees to it would be
worse off. What a source has is known only by and by, and a still picture is followed by a game: so
a rung follows the source down when that has had little for a while, and up with the next key frame.
"""

from collections import deque
from collections.abc import Iterable

from msgspec import structs

from edged.media.ladder import VideoRung
from edged.media.track import Codec

WINDOW_S = 1  # Of the source, at least: to a key frame where one comes in time,
WINDOW_S_MAX = 4  # and no longer than this.
KEPT_S = 10  # The busiest window of so long counts.
# Of a rung's bit rate to that of the one above it, at most: else it is no step for a player.
STEP_NUM, STEP_DEN = 4, 5
# An H.264 rung needs more bits than a source of these for the same picture. (num, den)
CODEC_GAINS = {Codec.H265: (3, 2), Codec.VP9: (3, 2), Codec.AV1: (9, 5)}
LEVEL_NUM, LEVEL_DEN = 4, 5  # From a rate to the next lower one: an encoder is opened anew for it.
SPARE_NUM, SPARE_DEN = 10, 9  # What a source has to have beyond a rate for the way back up to it.
BITRATE_BPS_MIN = 100_000


class SourceRate:
    """Bits a second of one track, by its units in the order in which they are decoded."""

    def __init__(self, timescale: int) -> None:
        self._timescale = timescale
        self._windows: deque[tuple[int, int]] = deque()  # Where each ended, and its bits a second.
        self._began: int | None = None
        self._bits = 0

    def add(self, dts: int, size: int, *, random_access: bool) -> None:
        """Count a unit of so many bytes; times in ticks."""
        second = self._timescale
        if self._began is None or not 0 <= dts - self._began <= 2 * WINDOW_S_MAX * second:
            self._windows.clear()  # Another timeline.
            self._began, self._bits = dts, 0
        took = dts - self._began
        if took >= WINDOW_S_MAX * second or (random_access and took >= WINDOW_S * second):
            self._windows.append((dts, self._bits * second // took))
            while self._windows[0][0] < dts - KEPT_S * second:
                self._windows.popleft()
            self._began, self._bits = dts, 0
        self._bits += 8 * size

    @property
    def bps(self) -> int:
        """Of the busiest of the last windows; 0: not known yet."""
        return max((bps for _, bps in self._windows), default=0)


class RungRates:
    """What each rung of one source gets."""

    def __init__(self, codec: Codec) -> None:
        self._gain = CODEC_GAINS.get(codec, (1, 1))
        self._given: dict[str, int] = {}  # By the rung's name.

    def limit(
        self, rungs: Iterable[VideoRung], source_bps: int, source_pixels: int
    ) -> list[VideoRung]:
        """The rungs, from the largest, with no more than the source allows; 0: nothing is known."""
        if not source_bps:
            return list(rungs)
        ceiling = source_bps * self._gain[0] // self._gain[1]
        limited: list[VideoRung] = []
        for rung in rungs:
            if rung.width * rung.height < source_pixels:
                ceiling = ceiling * STEP_NUM // STEP_DEN
            bitrate = self._given[rung.name] = self._choose(rung, ceiling)
            if limited:
                bitrate = min(bitrate, max(limited[-1].bitrate_bps, BITRATE_BPS_MIN))
            limited.append(_with_bitrate(rung, bitrate))
        return limited

    def _choose(self, rung: VideoRung, ceiling: int) -> int:
        """The highest of its rates that the ceiling allows; back up only with some to spare."""
        before = self._given.get(rung.name, rung.bitrate_bps)
        rate = rung.bitrate_bps
        while rate > BITRATE_BPS_MIN:
            spare = rate > before and rate * SPARE_NUM // SPARE_DEN > ceiling
            if rate <= ceiling and not spare:
                return rate
            rate = rate * LEVEL_NUM // LEVEL_DEN
        return min(rung.bitrate_bps, BITRATE_BPS_MIN)


def _with_bitrate(rung: VideoRung, bitrate: int) -> VideoRung:
    if bitrate == rung.bitrate_bps:
        return rung
    maxrate = rung.maxrate_bps * bitrate // rung.bitrate_bps
    buffer = rung.buffer_bits * bitrate // rung.bitrate_bps
    return structs.replace(rung, bitrate_bps=bitrate, maxrate_bps=maxrate, buffer_bits=buffer)
