"""One peer of IRS, a PoP or an origin: what it says, and who is told of it."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import trio

from edged.errors import RemoteProtocolError
from edged.irs.pops import PopsTeller
from edged.irs.session import Driver
from edged.media.epochs import EpochAnswer, check_plausible
from edged.media.live import LiveReport
from edged.media.reach import Audience
from edged.media.routing import RULES_PROTO
from edged.policy.pushed_tables import Variant
from edged.runtime.tls import Identity
from edged.wire.irs_link import IrsLink, TableAcked, TableRefused
from edged.wire.table import (
    Heartbeat,
    Moved,
    MoveRefused,
    News,
    OriginHello,
    PopHello,
    ShedDone,
    Telemetry,
)

if TYPE_CHECKING:
    from edged.irs.service import IrsService
    from edged.policy.planner import PopLeases

MADE_ROOM = "it had not said who it is, and others wait"

log = structlog.get_logger("edged.irs")


class Peer:
    """A session, from before its hello on."""

    def __init__(
        self,
        service: "IrsService",
        stream: trio.abc.Stream,
        peer: str,
        known: Callable[[], bool],
    ) -> None:
        """`known` is called when the peer has said who it is; False: it is too late for that."""
        self.service = service
        self._known = known
        self.peer = peer
        self.identity: Identity | None = None
        self.key = ""  # Of the PoP shard.
        self.origin = ""
        self.by = ""  # As which of several addresses it reaches us.
        self.offered: tuple[int, PopLeases] | None = None  # Under which epoch, last.
        self.has_table = False  # It came with one.
        self.variant = Variant(RULES_PROTO, knows_kept=False)
        self.teller: PopsTeller | None = None  # Of a PoP that wants to hear of the others.
        now = trio.current_time()
        self.opened_at = now
        self.link = IrsLink(now=now, epoch=lambda: service.epoch, entropy=service.entropy)
        self.driver = Driver(stream, self.link, self.handle, goodbye=self.link.refuse)

    def handle(self, event: object) -> None:
        """Take an event of the core; raises EdgedError to end the session."""
        now = trio.current_time()
        service = self.service
        match event:
            case PopHello():
                self._welcome("pop", event.pop)
                service.pop_joined(self, event)
            case OriginHello():
                self._welcome("origin", event.origin)
                service.origin_joined(self, event)
            case Heartbeat(report):
                if report.origin != self.origin:
                    raise RemoteProtocolError(
                        f"heartbeat of {report.origin!r} from {self.origin!r}"
                    )
                service.note(service.collectors.heartbeat(report, now))
            case Telemetry(told):
                service.watch.told(self.key, told)
                service.note(service.collectors.telemetry(self.key, told, now))
            case TableAcked() | TableRefused() | EpochAnswer():
                self._take_answer(event)
            case Moved() | MoveRefused() | ShedDone() | LiveReport() | Audience():
                self._take_news(event)

    def _take_answer(self, answer: TableAcked | TableRefused | EpochAnswer) -> None:
        """What a PoP says to what we pushed or asked."""
        service = self.service
        match answer:
            case TableAcked(table, delay_s):
                service.tables[self.key] = table
                service.push_delay_s = delay_s
            case TableRefused(epoch, version, reason):
                service.nacks += 1
                log.warning("table refused", pop=self.key, reason=reason)
                if not self.link.grants_epochs:  # Else it says which epoch it wants.
                    service.outbid(epoch, version)
            case EpochAnswer():
                memo = (answer.stamp[0], 0 if answer.memo is None else answer.memo.epoch)
                for epoch in (answer.epoch, *memo):
                    check_plausible(epoch, service.now_unix(), self.key)
                service.seat.answered(self.key, answer)

    def _take_news(self, news: News | LiveReport | Audience) -> None:
        """What a PoP says of its streams."""
        service = self.service
        match news:
            case Moved():
                service.moving.moved(self.key, news)
                service.migrating.moved(self.key, news)
                service.watch.moved(self.key, news)
            case MoveRefused():
                service.moving.refused(self.key, news)
                service.migrating.refused(self.key, news)
                service.watch.kept(self.key, news)
            case ShedDone():
                service.shedding.done(self.key, news)
                service.watch.shed(self.key, news)
            case LiveReport():
                service.live.reported(self.key, news)
            case Audience():
                service.reach.told(self.key, news)

    def check_alone(self, older: "Peer | None", who: str, by: str) -> None:
        """Raise RemoteProtocolError if the peer is here already, by another address of ours."""
        self.by = by
        if older is not None and by and older.by not in ("", by):
            self.link.twin = older.by
            raise RemoteProtocolError(f"{who} is here by {older.by}: {by} is the same irs")

    def begin_epoch(self) -> None:
        """The PoP listens to us from now on: what it was told before was told by another."""
        self.offered = None
        self.teller = None if self.teller is None else PopsTeller()

    def pushes(self) -> Counter[str]:
        """How many tables it was pushed, by kind."""
        pusher = self.link.pusher
        if pusher is None:
            return Counter()
        return Counter(snapshot=pusher.snapshots, delta=pusher.deltas)

    def wake(self) -> None:
        """Something is to be sent."""
        self.driver.wake()

    def _welcome(self, role: str, name: str) -> None:
        if self.identity is not None and self.identity != Identity(role, name):
            raise RemoteProtocolError(
                f"certificate of {self.identity} may not speak for {role}/{name}"
            )
        if not self._known():
            raise RemoteProtocolError(MADE_ROOM)
