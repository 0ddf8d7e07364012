"""What a PoP tells one IRS of what is live: all of it when asked, then what changes.

    asked ──▶ report 1, 2, ... until all is told ──▶ a report when something has changed,
                                                     and at least each CONFIRM_S

A report has ROWS_MAX rows at most, and they come no closer than PACE_S: a snapshot of thousands
holds up neither the loop at either end nor what else the session carries.
"""

import math
from collections.abc import Mapping

from edged.media.live import CHANNELS_MAX, ROWS_MAX, LiveAsk, LiveReport, LiveRow

PACE_S = 0.02  # 25,000 rows a second.
CONFIRM_S = 10.0  # With nothing new: how many there are, so that a difference shows.


class LiveTeller:
    """Of one session. `now` is monotonic."""

    def __init__(self) -> None:
        self._ask: int | None = None
        self._number = 0
        self._told: dict[str, LiveRow] = {}
        self._behind = False  # Not all has been told.
        self._told_at = -math.inf
        self.rows_told = 0

    def asked(self, ask: LiveAsk) -> None:
        """Begin anew: what was told before counts no more."""
        self._ask, self._number, self._told = ask.number, 0, {}
        self._behind = True

    def report(self, rows: Mapping[str, LiveRow], now: float) -> LiveReport | None:
        """What is to be told now of what is live, by channel; None: nothing, or not yet."""
        if self._ask is None or now < self._told_at + PACE_S:
            return None
        told = self._told
        removed = [channel for channel in told if channel not in rows][:ROWS_MAX]
        for channel in removed:
            del told[channel]
        changed = self._take_changed(rows, ROWS_MAX - len(removed))
        was_behind, self._behind = self._behind, len(removed) + len(changed) == ROWS_MAX
        if not (removed or changed or was_behind) and now < self._told_at + CONFIRM_S:
            return None
        self._number += 1
        self._told_at = now
        self.rows_told += len(changed)
        return LiveReport(
            ask=self._ask,
            number=self._number,
            changed=tuple(changed),
            removed=tuple(removed),
            more=self._behind,
            count=len(told),
            omitted=0 if self._behind else max(0, len(rows) - len(told)),
        )

    def next_timeout(self) -> float:
        """When the rest of what is not told yet may follow; inf: all is, until something changes.

        Whoever tells looks for changes by itself, and asks for a report then.
        """
        return self._told_at + PACE_S if self._ask is not None and self._behind else math.inf

    def _take_changed(self, rows: Mapping[str, LiveRow], most: int) -> list[LiveRow]:
        told, changed = self._told, list[LiveRow]()
        room = CHANNELS_MAX - len(told)
        for channel, row in rows.items():
            if len(changed) == most:
                break
            known = told.get(channel)
            if known is row or known == row:
                continue
            if known is None:
                if not room:
                    continue
                room -= 1
            told[channel] = row
            changed.append(row)
        return changed
