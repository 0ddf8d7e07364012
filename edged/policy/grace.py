"""The grace of publishers that have lost their connection: until when their runs wait for them.

A run waits `grace_s` from the loss. Who comes back in time goes on with it; else it ends. While one
has come back and has not shown yet whether it fits, the end is put off.
"""

import math

WAITING_MAX = 4096  # More than publishers at a PoP; beyond it the one that waited longest ends.
PUT_OFF_S = 1.0  # Sessions that send nothing end by themselves, so this does not go on for ever.


class Grace:
    """The runs of one PoP that wait, by channel."""

    def __init__(self, grace_s: float, *, waiting_max: int = WAITING_MAX) -> None:
        self._grace_s, self._waiting_max = grace_s, waiting_max
        self._until: dict[str, float] = {}  # The one that has waited longest is first.

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, channel: str) -> bool:
        return channel in self._until

    @property
    def enabled(self) -> bool:
        """Whether runs wait at all."""
        return self._grace_s > 0

    def reconfigure(self, grace_s: float) -> None:
        """Another time for those who are lost from now on."""
        self._grace_s = grace_s

    def begin(self, channel: str, now: float) -> list[str]:
        """A run's publisher is lost; returns those that wait no longer, at the limit.

        Lost again before it had gone on, it waits no longer than it would have.
        """
        self._until.setdefault(channel, now + self._grace_s)
        ended = list(self._until)[: max(0, len(self._until) - self._waiting_max)]
        for waited in ended:
            del self._until[waited]
        return ended

    def end(self, channel: str) -> None:
        """The run has gone on, or is over."""
        self._until.pop(channel, None)

    def put_off(self, channel: str, now: float) -> None:
        """Someone has come back, and it will show soon whether the run can go on."""
        if channel in self._until:
            self._until[channel] = now + PUT_OFF_S

    def expired(self, now: float) -> list[str]:
        """The runs whose time is over."""
        return [channel for channel, until in self._until.items() if now >= until]

    def slept(self, late_s: float) -> None:
        """We were late ourselves by so much: who has come back meanwhile may lie unread."""
        for channel in self._until:
            self._until[channel] += late_s

    def next_timeout(self) -> float:
        """When `expired` has something; infinite while nothing waits."""
        return min(self._until.values(), default=math.inf)
