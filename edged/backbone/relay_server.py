"""A PoP that relays: other PoPs subscribe here to parts that come to it from their origin.

It is an origin's end with nothing but parts: who asks for units, or brings any, is in the wrong
place. What is pushed is what was shown here, in that order, so nobody hears of a part that this PoP
had not got whole. It tells no directory and no heartbeat; its pings tell that it lives.
"""

import ssl
from typing import TYPE_CHECKING, NoReturn, Protocol

import structlog
import trio

from edged.backbone.local_end import LocalEnd
from edged.backbone.session import OUT_BYTES_MAX, BackboneSession
from edged.backbone.subscriptions import Subscriptions
from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, SegmentPiece
from edged.media.stream import PriorityClass, StreamId
from edged.policy.relay_news import RelayNews
from edged.policy.rung_sieve import Rungs
from edged.runtime.connection import Connection, PumpClass
from edged.runtime.hub import Hub
from edged.runtime.listeners import parse_address, serve
from edged.runtime.tls import check_plain
from edged.wire.backbone.events import FlowEnded, SenderEvent
from edged.wire.backbone.messages import (
    Hello,
    Message,
    RungsWanted,
    StreamRefused,
    SubscribeParts,
    SubscriptionRefused,
    Unsubscribe,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edged.runtime.pump import Pump

SESSIONS_MAX = 1024  # 4 of each PoP shard: 256 of them.
POP_ROLES = frozenset({"pop"})

logger = structlog.get_logger("edged.backbone")


class RelayHost(Protocol):
    """What the PoP's role is to it. All of it is synchronous."""

    def why_not(self, channel: str) -> str:
        """Why a channel is not relayed to one more PoP now; "" if it is."""

    def replay(
        self, channel: str, *, lists: bool, cold: bool
    ) -> tuple[StreamId, list[PackagedEvent]] | None:
        """What a late subscriber of a channel gets first; None: it is not here."""


class RelayServer:
    """Accepts other PoPs' sessions. `tls` None is plain TCP, for loopback only."""

    def __init__(
        self,
        pump: "Pump",
        host: RelayHost,
        *,
        local: LocalEnd,
        listen: str,
        tls: ssl.SSLContext | None,
    ) -> None:
        if tls is None:
            check_plain(parse_address(listen)[0], "relay")
        self._pump, self._host, self._local, self._listen = pump, host, local, listen
        self._tls = tls
        self._subscriptions = Subscriptions(Hub(), host.replay)  # There are no units here.
        self._sessions: dict[BackboneSession, None] = {}
        self._news: dict[str, RelayNews] = {}  # Of channels that any gets.
        self.refused = 0
        self.on_rungs: Callable[[str], None] = lambda _: None  # Others are to come; "": of any.

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; starts with the address bound."""
        try:
            await serve(
                self._pump,
                self._listen,
                self._make_session,
                PumpClass.BACKBONE,
                tls=self._tls,
                connections_max=SESSIONS_MAX,
                makes_room=True,
                out_bytes_max=OUT_BYTES_MAX,
                task_status=task_status,
            )
        finally:
            for session in list(self._sessions):
                session.close("drain", "the PoP is stopping")

    def publish(self, stream_id: StreamId, events: list[PackagedEvent]) -> None:
        """Push what was shown here, and is in `replay` by now, to who subscribes to it."""
        channel = stream_id.channel
        if not self._subscriptions.count(channel):
            self._news.pop(channel, None)
            return
        self._subscriptions.go_on(stream_id)
        news = self._news.setdefault(channel, RelayNews())
        for event in news.take(stream_id, events):
            self._subscriptions.publish_event(stream_id, event)

    def rungs(self, channel: str) -> Rungs:
        """Which rungs PoPs are to get from here; None: all."""
        return self._subscriptions.rungs(channel)

    def count(self, channel: str) -> int:
        """How many PoPs get a channel from here."""
        return self._subscriptions.count(channel)

    def counts(self) -> dict[str, int]:
        """The same of each channel that any gets."""
        return self._subscriptions.counts()

    @property
    def subscriptions(self) -> int:
        """Of all PoPs."""
        return self._subscriptions.statistics().parts

    def end(self, channel: str, code: str, reason: str) -> None:
        """Relay a channel no more."""
        self._news.pop(channel, None)
        self._subscriptions.end_channel(channel, code, reason)

    # What sessions call.

    def session_accepted(self, session: BackboneSession, hello: Hello) -> None:
        """Another PoP is here."""
        del hello
        self._sessions[session] = None

    def message_received(self, session: BackboneSession, message: Message) -> None:
        """Act on a PoP's message."""
        if session.peer.purpose != "media":
            self._reject(session, type(message).__name__)
        if isinstance(message, SubscribeParts):
            why = self._host.why_not(message.channel)
            if why:
                self.refused += 1
                session.send(SubscriptionRefused(message.sub_no, "no_relay", why))
            else:
                self._subscriptions.subscribe(session, message)
                self.on_rungs(message.channel)
        elif isinstance(message, (Unsubscribe, StreamRefused, RungsWanted)):
            self._subscriptions.handle(session, message)
            self.on_rungs("")
        else:
            self._reject(session, type(message).__name__)

    def units_received(
        self, session: BackboneSession, stream_no: int, units: list[AccessUnit]
    ) -> None:
        """Refuse: nothing is brought here."""
        del stream_no, units
        self._reject(session, "units")

    def event_received(
        self, session: BackboneSession, stream_no: int, event: PackagedEvent | SegmentPiece
    ) -> None:
        """Refuse: nothing is brought here."""
        del stream_no
        self._reject(session, type(event).__name__)

    def flow_changed(self, session: BackboneSession, event: SenderEvent) -> None:
        """A stream's last frame was made."""
        if isinstance(event, FlowEnded):
            self._subscriptions.flow_ended(session, event)

    def session_lost(self, session: BackboneSession, reason: str) -> None:
        """Forget a PoP's subscriptions."""
        del reason
        self._sessions.pop(session, None)
        self._subscriptions.session_lost(session)

    def _reject(self, session: BackboneSession, what: str) -> NoReturn:
        raise RemoteProtocolError(f"{session.peer.name}: {what} to a PoP, which relays parts alone")

    def _make_session(self, connection: Connection) -> BackboneSession:
        return BackboneSession(
            self._pump,
            connection,
            self,
            self._local.hello("media", PriorityClass.BASIC),
            roles=POP_ROLES,
            name=None,
            client=False,
            marks=self._local.marks,
        )
