"""Wrong stream keys, counted by where they come from, so that a key cannot be found by guessing.

After WRONG_KEYS_MAX within WINDOW_S no key from there is looked at, right or wrong, until the
oldest of them is WINDOW_S old. A right key is not counted, nor one that is genuine and refused for
another reason. The counts are a process's own.
"""

from edged.errors import PublishRefusedError
from edged.media.place import place_of

WRONG_KEYS_MAX = (
    10  # An encoder set up wrongly, which tries every few seconds, hears why each time.
)
WINDOW_S = 60.0  # 14,400 guesses a day from one place.
ADDRESSES_MAX = 10_000  # Beyond it the one whose last wrong key is oldest is forgotten.
CODES = frozenset({"unknown_key"})  # Of refusals that say: this was no key at all.


class Attempts:
    """When the wrong keys came, by address."""

    def __init__(self, addresses_max: int = ADDRESSES_MAX) -> None:
        self._addresses_max = addresses_max
        self._wrong: dict[str, list[float]] = {}  # The last wrong key's address is last.

    def __len__(self) -> int:
        return len(self._wrong)

    def check(self, peer: str, now: float) -> None:
        """Raise `PublishRefusedError` ("rate_limited") when no key from there may be looked at."""
        times = self._wrong.get(place_of(peer), [])
        if len(times) >= WRONG_KEYS_MAX and (left_s := times[0] + WINDOW_S - now) > 0:
            raise PublishRefusedError(
                "rate_limited",
                f"{len(times)} wrong stream keys came from this address within {WINDOW_S:g} s;"
                f" try again in {left_s:.0f} s",
                retry_after_s=left_s,
            )

    def note_refused(self, peer: str, code: str, now: float) -> None:
        """Count a key that was refused, if its code says that it was a wrong one."""
        if code not in CODES:
            return
        place = place_of(peer)
        times = self._wrong.pop(place, [])
        times.append(now)
        self._wrong[place] = times[-WRONG_KEYS_MAX:]
        if len(self._wrong) > self._addresses_max:
            del self._wrong[next(iter(self._wrong))]
