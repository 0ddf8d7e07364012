"""A PoP's links to PoPs that relay, kept as orders name them. Nothing but parts comes by them."""

import math
import random
import ssl
from collections.abc import Callable, Iterable, Mapping, Set
from typing import NoReturn

import structlog
import trio

from edged.backbone.fence import Fence
from edged.backbone.forwarding import Forwarding
from edged.backbone.local_end import LocalEnd
from edged.backbone.sender import OriginLink
from edged.backbone.session import BackboneSession
from edged.errors import ConfigError, RemoteProtocolError
from edged.media.routing import OriginReport
from edged.media.stream import DescriptionChange, PriorityClass
from edged.runtime.hub import Hub
from edged.runtime.pump import Pump
from edged.runtime.supervision import Supervisor
from edged.wire.backbone.messages import DirectoryDelta, ProbesOffered

LINKS_MAX = 64  # Orders that name more of them are not carried out.
# Since the last byte: each session's ping is answered once a second.
ALIVE_S = 1.1
PINGS_S = 3.5  # Until its pings tell how far it is: the first of a busy loop tell of that.
RELAY_ROLES = frozenset({"pop"})  # What the certificate of one that relays has to say.
SESSIONS = (None, *PriorityClass)  # Control, and media of each class.

logger = structlog.get_logger("edged.pop")


class _Link:
    def __init__(self, link: OriginLink) -> None:
        self.link = link
        self.scope = trio.CancelScope()
        self.up_at: float | None = None  # When the last of its sessions came to stand.
        self.heard_bytes, self.heard_at = 0, -math.inf

    def note_heard(self, now: float) -> None:
        """Look whether anything came, of whatever kind."""
        sessions = self.link.sessions.values()
        heard = sum(session.connection.received_bytes for session in sessions)
        if heard != self.heard_bytes:
            self.heard_bytes, self.heard_at = heard, now

    @property
    def is_up(self) -> bool:
        return all(map(self.link.is_up, SESSIONS))

    def ms(self, now: float) -> float | None:
        if self.up_at is None or now < self.up_at + PINGS_S:
            return None
        control = self.link.statistics().control
        # The least of its pings: waiting in either loop is no distance, and begins with much of it.
        rtt_s = None if control is None else control.rtt_s_min
        return None if rtt_s is None else 1000 * rtt_s


class RelayLinks:
    """Of one PoP shard; the `LinkOwner` of each."""

    def __init__(
        self,
        pump: Pump,
        local: LocalEnd,
        fence: Fence,
        *,
        tls: ssl.SSLContext | None,
        supervisor: Supervisor,
        rng: random.Random,
    ) -> None:
        self.nursery: trio.Nursery | None = None  # While they may run.
        self.on_changed: Callable[[], None] = lambda: None  # One came up, or was lost.
        self._pump, self._local, self._fence, self._tls = pump, local, fence, tls
        self._supervisor, self._rng = supervisor, rng
        self._links: dict[str, _Link] = {}
        self._unusable: dict[str, str] = {}  # Relay -> its address that was said to be wrong.

    def get(self, relay: str) -> OriginLink | None:
        """The way to a relay, while there is one."""
        known = self._links.get(relay)
        return None if known is None else known.link

    def is_up(self, relay: str, priority: PriorityClass | None) -> bool:
        """Whether the session of a class stands, or any at all (None)."""
        known = self._links.get(relay)
        if known is None:
            return False
        return bool(known.link.sessions) if priority is None else known.link.is_up(priority)

    def down_why(self, relay: str) -> str:
        """Why the way to a relay is not up, as far as that is known."""
        known = self._links.get(relay)
        return "" if known is None else known.link.down_why

    def is_alive(self, relay: str, now: float) -> bool:
        """Whether anything has come from it lately, be it pings."""
        known = self._links.get(relay)
        return known is not None and now < known.heard_at + ALIVE_S

    def ms(self, relay: str) -> float | None:
        """Its round trip, as its pings tell."""
        known = self._links.get(relay)
        return None if known is None else known.ms(self._pump.now())

    def peers(self) -> dict[str, float]:
        """Round trips to all of them."""
        now = self._pump.now()
        found = {relay: known.ms(now) for relay, known in self._links.items()}
        return {relay: round(ms, 2) for relay, ms in found.items() if ms is not None}

    def keep(
        self, wanted: Iterable[str], addresses: Mapping[str, str], used: Set[str], now: float
    ) -> None:
        """Have links to those that orders name; those that nothing needs end."""
        wanted = list(wanted)
        for relay in self._links.keys() - set(wanted) - used:
            self._links.pop(relay).scope.cancel()
        for known in self._links.values():
            known.link.expire(now)
            known.note_heard(now)
        for relay in wanted:
            address = addresses.get(relay, "")
            if not address or self._unusable.get(relay) == address:
                continue
            try:
                if relay in self._links:
                    self._links[relay].link.move(address)
                elif len(self._links) < LINKS_MAX and self.nursery is not None:
                    self._open(relay, address)
            except ConfigError as error:
                self._unusable[relay] = address
                logger.error("relay cannot be used", relay=relay, reason=str(error))  # noqa: TRY400 - another's mistake, not ours

    def _open(self, relay: str, address: str) -> None:
        assert self.nursery is not None
        link = OriginLink(
            self._pump,
            Hub(),  # No units come from there.
            self,
            local=self._local,
            origin=relay,
            address=address,
            tls=self._tls,
            rng=self._rng,
            fence=self._fence,
            roles=RELAY_ROLES,
        )
        known = self._links[relay] = _Link(link)
        self.nursery.start_soon(self._run_link, known)

    async def _run_link(self, known: _Link) -> None:
        with known.scope:
            await self._supervisor.keep("relay link", known.link.run, of=known.link.origin)

    # What links tell (`LinkOwner`).

    def link_up(self, origin: str, priority: PriorityClass | None) -> None:
        """A session stands."""
        del priority
        known = self._links.get(origin)
        if known is not None and known.is_up and known.up_at is None:
            known.up_at = self._pump.now()
        self.on_changed()

    def link_lost(self, origin: str, priority: PriorityClass | None, reason: str) -> None:
        """A session is lost: what came over it goes to its origin now."""
        del priority, reason
        if (known := self._links.get(origin)) is not None:
            known.up_at = None
        self.on_changed()

    def heartbeat(self, report: OriginReport) -> None:
        """None comes from a PoP."""
        _refuse(f"heartbeat of {report.origin}")

    def directory(self, delta: DirectoryDelta) -> bool:
        """None comes from a PoP."""
        _refuse(f"directory of {delta.origin}")

    def accepted(self, forwarding: Forwarding) -> None:
        """Nothing is brought there."""
        _refuse(f"word on {forwarding.stream_id}")

    def refused(self, forwarding: Forwarding, code: str, reason: str) -> None:
        """Nothing is brought there."""
        del code, reason
        _refuse(f"word on {forwarding.stream_id}")

    def description_wanted(self, channel: str, change: DescriptionChange) -> None:
        """That goes by origins."""
        del change
        _refuse(f"description of {channel}")

    def key_frame_wanted(self, forwarding: Forwarding, track_id: int) -> None:
        """Nothing is brought there."""
        del track_id
        _refuse(f"wish for a key frame of {forwarding.stream_id}")

    def probes_offered(self, session: BackboneSession, offer: ProbesOffered) -> None:
        """Its pings tell how far it is."""
        del offer
        _refuse(f"probes of {session.peer.name}")


def _refuse(what: str) -> NoReturn:
    raise RemoteProtocolError(f"{what} from a PoP that relays")
