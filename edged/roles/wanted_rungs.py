"""Which rungs of a channel are pushed to this PoP: those that IRS says, and what is asked for here.

A channel of which an order has named rungs comes by these, by those that viewers have asked for
lately, and by those that go on to other PoPs from here. So it goes on for as long as it is here,
whatever becomes of the order: an IRS that is gone must not make all links fuller. Of the other
rungs whole segments are listed, and fetched when a viewer wants one (`policy.rung_sieve`).
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from edged.playback.hls import Channel
from edged.policy.reach_orders import ReachOrders
from edged.policy.rung_sieve import Rungs

LOOK_S = 1.0
WANTED_MAX = 32  # As many renditions as a stream may have; with more all are wanted.

Wanted = tuple[str, ...] | None  # None: all.


class Relayed(Protocol):
    """The relay server, as far as it is asked here."""

    def count(self, channel: str) -> int:
        """How many PoPs get a channel from here."""

    def rungs(self, channel: str) -> Rungs:
        """Which rungs they are to get; None: all."""


class WantedRungs:
    """Of one PoP shard. All of it is synchronous."""

    def __init__(
        self,
        orders: ReachOrders,
        *,
        channels: Callable[[], Mapping[str, Channel]],
        push: Callable[[str, Wanted], None],
        now: Callable[[], float],
    ) -> None:
        """`push` has these pushed alone, by whoever brings the channel."""
        self.server: Relayed | None = None
        self._orders, self._channels, self._push, self._now = orders, channels, push, now
        self._told: dict[str, Wanted] = {}  # Of channels that come by rungs.
        self._looked_at = -math.inf

    def rungs(self, channel: str) -> Wanted:
        """Those that are to be pushed; it comes by rungs from now on if an order says so."""
        now = self._now()
        order = self._orders.in_force(now).get(channel)
        ordered = () if order is None else order.rungs
        if (order is not None and not ordered) or not (ordered or channel in self._told):
            self._told.pop(channel, None)
            return None
        wanted = set(ordered)
        known = self._channels().get(channel)
        if known is not None:
            known.count.on_asked = partial(self._asked, channel)
            wanted |= set(known.count.asked(now))
        if self.server is not None and self.server.count(channel):
            relayed = self.server.rungs(channel)
            if relayed is None:
                self._told[channel] = None
                return None
            wanted |= relayed
        if not wanted:
            return self._told[channel]  # Nobody asks for any: what came last.
        told = tuple(sorted(wanted)) if len(wanted) <= WANTED_MAX else None
        self._told[channel] = told
        return told

    def changed(self, channel: str = "") -> None:
        """Other rungs may be wanted of a channel, or of all that come by rungs."""
        for name in (channel,) if channel else tuple(self._told):
            self._push(name, self.rungs(name))

    def look(self, now: float) -> None:
        """Follow orders, and what is asked for no more; now and then."""
        if now < self._looked_at + LOOK_S:
            return
        self._looked_at = now
        channels = self._channels()
        for name in [name for name in self._told if _is_gone(channels.get(name))]:
            del self._told[name]
        ordered = [order.channel for order in self._orders.in_force(now).values() if order.rungs]
        for name in dict.fromkeys((*ordered, *self._told)):
            if name in channels:
                self.changed(name)

    def seen(self, channel: str) -> Wanted:
        """For people: what is pushed of it; None: all."""
        return self._told.get(channel)

    def _asked(self, channel: str, rendition: str) -> None:
        told = self._told.get(channel)
        if told is not None and rendition not in told:
            self.changed(channel)


def _is_gone(channel: Channel | None) -> bool:
    return channel is None or not channel.subscribed
