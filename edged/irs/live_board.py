"""IRS's side of who is live where: PoPs are asked as they come, and what they tell is kept."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Protocol

import structlog
import trio
from msgspec import Struct

from edged.irs.reach_seen import PopWay
from edged.irs.session import drain_readable
from edged.media.live import LiveAsk, LiveReport
from edged.policy.live_registry import LiveConflict, LiveRegistry, LiveSeen
from edged.runtime.metrics import MetricSpec, Sample
from edged.wire.irs_link import IrsLink

CONFLICTS_MAX = 100  # Shown, or counted: more have one cause.
SETTLED_S = 5.0  # A takeover at another PoP takes a moment; what is so for longer is a conflict.

METRICS = (
    MetricSpec(name="edged_irs_live_channels", help="Channels that are live at any PoP"),
    MetricSpec(
        name="edged_irs_live_conflicts",
        help="Channels that several PoPs publish for some seconds now, 100 at most",
    ),
    MetricSpec(name="edged_irs_live_pops_partial", help="PoPs of which not all channels are known"),
    MetricSpec(name="edged_irs_live_asks_total", help="How often PoPs were asked for all of them"),
)

log = structlog.get_logger("edged.irs")


class Session(Protocol):
    """What it needs of a PoP's session."""

    link: IrsLink

    def wake(self) -> None:
        """Something is to be sent."""


class LiveQuery(Struct, frozen=True, kw_only=True):
    """What is asked: one channel, or those with a text in their name, of a PoP, of an origin."""

    channel: str = ""
    text: str = ""
    pop: str = ""
    origin: str = ""
    limit: int = 100


class LiveAnswer(Struct, frozen=True, kw_only=True):
    """Who is live where, as IRS knows it."""

    channels: int  # In the network.
    matching: int  # Lines, of which `streams` has the first.
    streams: list[LiveSeen]
    conflicts: list[LiveConflict]  # Those that have lasted.
    unlisted: dict[str, str]  # PoP shards of which not all is known, and why.
    silent: list[str]  # PoP shards that are too old to tell.
    # Of one channel: which PoPs have it, and by which way; nothing where no reach is planned.
    ways: list[PopWay] = []


class LiveBoard:
    """Of one IRS. All but `run` is synchronous."""

    def __init__(self, sessions: Mapping[str, Session]) -> None:
        """`sessions`: of PoP shards, by name."""
        self.registry = LiveRegistry()
        self._sessions = sessions
        self._woken = trio.Event()
        self._full: dict[str, str] = {}  # PoPs of which it is said that they have no room.

    def joined(self, key: str, link: IrsLink) -> None:
        """A PoP's session begins: it is asked, if it can tell."""
        if link.tells_live:
            self._send(key, self.registry.joined(key, trio.current_time()))
        else:
            self.registry.forget(key)

    def left(self, key: str) -> None:
        """It has ended."""
        self._full.pop(key, None)
        self.registry.left(key, trio.current_time())
        self._woken.set()

    def reported(self, key: str, report: LiveReport) -> None:
        """A PoP tells."""
        ask = self.registry.reported(key, report, trio.current_time())
        if reason := self.registry.why_full(key):
            if self._full.get(key) != reason:
                self._full[key] = reason
                log.warning("no room for what is live at a pop", pop=key, reason=reason)
        elif key in self._full and not self.registry.unlisted().get(key):
            del self._full[key]
            log.info("there is room again for what is live at a pop", pop=key)
        if ask is not None:
            log.warning("pop is asked again what is live", pop=key)
            self._send(key, ask)

    async def run(self) -> None:
        """Forget who is gone, and ask again, until cancelled."""
        while True:
            with trio.move_on_at(self.registry.next_timeout()):
                await self._woken.wait()
            self._woken = trio.Event()
            await drain_readable()
            now = trio.current_time()
            if now >= self.registry.next_timeout():
                for key, ask in self.registry.handle_timeout(now):
                    self._send(key, ask)

    def answer(self, query: LiveQuery) -> LiveAnswer:
        """What people ask."""
        registry, now = self.registry, trio.current_time()
        if query.channel:
            streams = [
                seen
                for seen in registry.at(query.channel, now)
                if query.pop in ("", seen.pop, seen.pop.partition("/")[0])
                and query.origin in ("", seen.origin)
            ]
            matching = len(streams)
        else:
            streams, matching = registry.find(
                now, text=query.text, pop=query.pop, origin=query.origin, most=query.limit
            )
        return LiveAnswer(
            channels=len(registry),
            matching=matching,
            streams=streams[: query.limit],
            conflicts=self.conflicts(),
            unlisted=registry.unlisted(),
            silent=sorted(key for key, each in self._sessions.items() if not each.link.tells_live),
        )

    def conflicts(self) -> list[LiveConflict]:
        """Channels that several PoPs publish, and have for longer than a takeover takes."""
        found = self.registry.conflicts(trio.current_time())
        return list(islice((each for each in found if each.for_s >= SETTLED_S), CONFLICTS_MAX))

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        yield Sample("edged_irs_live_channels", len(self.registry))
        yield Sample("edged_irs_live_conflicts", len(self.conflicts()))
        yield Sample("edged_irs_live_pops_partial", len(self.registry.unlisted()))
        yield Sample("edged_irs_live_asks_total", self.registry.asks)

    def _send(self, key: str, ask: LiveAsk) -> None:
        session = self._sessions.get(key)
        if session is not None:
            session.link.ask_live(ask, trio.current_time())
            session.wake()
        self._woken.set()
