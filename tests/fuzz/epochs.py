"""What several IRSs and who is live where add to a session of IRS: messages, and who takes them."""

from collections.abc import Sequence

from edged.irs.gate import Gate
from edged.media.epochs import (
    UNASKED,
    DrainNote,
    EpochAnswer,
    EpochAsk,
    IrsMemo,
    check_plausible,
    is_plausible,
)
from edged.media.live import CHANNELS_MAX, LiveAsk, LiveReport, LiveRow
from edged.policy.epoch_claim import ASKS_MAX, EpochClaim
from edged.policy.epoch_grants import EpochGrants
from edged.policy.live_registry import LiveRegistry
from edged.policy.live_teller import LiveTeller
from edged.wire.irs_link import GrantReleased, IrsLink, PeerLink
from edged.wire.table import Message, PopHello

NOW_UNIX = 1_700_000_000.0
ROWS = tuple(
    LiveRow(f"c{at}", at + 1, 1, ("ams", "")[at % 2], "basic", "rtmp", 1e9) for at in range(3)
)
NOTE = DrainNote(origin="ams", since=1e9, until=1e9 + 60, left_s=50.0, by="me")
MEMO = IrsMemo(epoch=1, revision=2, drains=(NOTE,))

MESSAGES: tuple[Message, ...] = (
    PopHello(pop="fra1", shard=0, grants_epochs=True, tells_live=True),
    EpochAsk(irs="a", number=1, kind="want", epoch=1),
    MEMO,  # From whom was granted one: the next that asks is shown it.
    EpochAsk(irs="b", number=2, kind="look", epoch=2),
    EpochAsk(irs="a", number=3, kind="release", epoch=1, memo=(1, 1)),
    EpochAnswer(number=1, granted=False, epoch=0),
    EpochAnswer(number=2, granted=True, begins=True, epoch=1, stamp=(1, 2), memo=MEMO),
    EpochAnswer(number=3, granted=False, epoch=5, left_s=2.0, holder="irs2:1940"),
    EpochAnswer(number=UNASKED, granted=False, epoch=1),
    LiveAsk(number=1),
    LiveAsk(number=7),
    LiveReport(ask=1, number=1, changed=ROWS, count=3, more=True),
    LiveReport(ask=1, number=2, changed=ROWS[:1], removed=("c1", "x"), count=2),
    LiveReport(ask=2, number=1, changed=ROWS[1:], count=2),
)


class AtIrs:
    """What an IRS does with what a PoP says."""

    def __init__(self) -> None:
        self.claim = EpochClaim("a", 1, lambda: 0.5)
        self.registry = LiveRegistry()

    def take(self, link: IrsLink, event: object, now: float) -> None:
        """As `Seat` and `LiveBoard` do."""
        match event:
            case PopHello() if event.grants_epochs:
                self.claim.joined(event.key, now)
            case EpochAnswer():
                memo = (event.stamp[0], 0 if event.memo is None else event.memo.epoch)
                for epoch in (event.epoch, *memo):
                    check_plausible(epoch, NOW_UNIX, "fra1/0")
                self.claim.answered("fra1/0", event, now)
            case LiveReport():
                ask = self.registry.reported("fra1/0", event, now)
                if ask is not None and link.tells_live:
                    link.ask_live(ask, now)
        if isinstance(event, PopHello) and event.tells_live:
            link.ask_live(self.registry.joined("fra1/0", now), now)
        self._send(link, now)

    def handle_timeout(self, link: IrsLink, now: float) -> None:
        """Time matters to both."""
        if now >= self.claim.next_timeout():
            self.claim.handle_timeout(now)
        if now >= self.registry.next_timeout():
            for _, ask in self.registry.handle_timeout(now):
                link.ask_live(ask, now)
        self._send(link, now)

    def _send(self, link: IrsLink, now: float) -> None:
        for _, ask in self.claim.take_asks():
            if link.grants_epochs:
                link.ask(ask, now)

    def check(self, now: float) -> None:
        """Whatever was said, the figures are in their bounds."""
        assert is_plausible(self.claim.epoch - 1, NOW_UNIX + now)
        assert self.claim.grants(now) <= 1
        assert self.claim.unreleased <= 1 <= ASKS_MAX
        rows = self.registry.rows("fra1/0")
        assert len(rows) == len(self.registry) <= CHANNELS_MAX
        assert all(self.registry.at(channel, now)[0].newest for channel in rows)


class AtPop:
    """What a PoP does with what an IRS says."""

    def __init__(self) -> None:
        self.grants = EpochGrants()
        self.gate = Gate(self.grants, "irs1:1940", lambda: NOW_UNIX)
        self.teller = LiveTeller()
        self.grants.answer(EpochAsk(irs="b", number=1, kind="look", epoch=0), "irs2:1940", 0.0)

    def take(self, link: PeerLink, event: object, now: float) -> None:
        """As `PopClient` does."""
        match event:
            case GrantReleased():
                for session, notice in self.grants.take_notices(now):
                    assert session != "irs1:1940"
                    assert notice.number == UNASKED
            case LiveAsk():
                self.teller.asked(event)
        self.tell(link, now)

    def tell(self, link: PeerLink, now: float) -> None:
        """It looks each second, and here at each event."""
        report = self.teller.report({row.channel: row for row in ROWS}, now)
        if report is not None:
            assert report.count == len(ROWS)
            link.send(report, now)

    def check(self, now: float) -> None:
        """It has granted one IRS, or none, and only that one is believed."""
        holder = self.grants.active(now)
        assert holder in ("", "irs1:1940")
        assert self.grants.why_not("irs2:1940", now)
        assert is_plausible(self.grants.epoch, NOW_UNIX)


class Behind:
    """Both."""

    def __init__(self) -> None:
        self.irs, self.pop = AtIrs(), AtPop()

    def take(self, link: IrsLink | PeerLink, events: Sequence[object], now: float) -> None:
        """What has come by a link."""
        for event in events:
            if isinstance(link, IrsLink):
                self.irs.take(link, event, now)
            else:
                self.pop.take(link, event, now)

    def handle_timeout(self, link: IrsLink | PeerLink, now: float) -> None:
        """Time has passed."""
        if isinstance(link, IrsLink):
            self.irs.handle_timeout(link, now)
        else:
            self.pop.tell(link, now)

    def check(self, now: float) -> None:
        """In the end."""
        self.irs.check(now)
        self.pop.check(now)


def seeds(first: int) -> Sequence[bytes]:
    """Sessions of a PoP that grants, from either end; `first`: of MESSAGES among all."""
    whole = [bytes([3 + 4 * (first + index)]) for index in range(len(MESSAGES))]
    late = bytes([0, 255])
    return [
        b"\3" + b"".join((*whole[:1], *whole[5:9], late, *whole[11:14], *(6 * [late]))),
        b"\3" + whole[0] + whole[13] + whole[11] + whole[12] + late + whole[13],
        b"\3" + whole[0] + whole[12] + late + whole[13],
        b"\2" + b"".join((*whole[1:5], *whole[9:11], late, *whole[1:4])),
        b"\2" + whole[9] + late + whole[10] + late,
    ]
