"""A channel's runs as one PoP knows them: how a new one is numbered, and who may take over.

A run is newer than another by its number: Unix time in milliseconds, then chance. But clocks differ
and are set back. So a new run is numbered above every run of its channel heard of here, those that
have ended included; and one that an origin fences off, though nothing newer is live, gets a number
above the one that fenced it.

A run may also go on with another publisher, here or at another PoP. Its epoch then says so:

    home_epoch   takeovers x 2**20 + chance (12 bits) x 2**8 + re-homings since

so the epoch of a takeover is above that of any re-homing it has not heard of, and of two takeovers
at once one is newer. What its units and configurations are numbered from follows from it, above all
that the run has had before.

Two encoders with one key must not evict each other for ever, at one PoP or at two. A takeover
counts here when a run of ours takes the place of one that is live, here or elsewhere, and when a
newer one takes ours; for TAKEOVER_INTERVAL_S after it we take over nothing.
"""

import enum

from edged.errors import PublishRefusedError
from edged.media.stream import StreamId

PUBLICATION_CHANCE_BITS = 12  # Two PoPs in one millisecond get different publications.
PUBLICATION_MAX = 2**63 - 1  # Above it no clock's number lies: a fault, which must not spread.
TAKEOVER_INTERVAL_S = 30.0
LISTED_S_MAX = 0.5  # By then the directory, told ten times a second, shows a run that fenced ours.
RENUMBERINGS_MAX = 3  # Of one run; origins that fence it off again and again are at fault.
TAKEOVERS_MAX = 1000  # Of one run, 8 hours of them; then a new one begins. Bounds numbers.
EPOCH_CHANCE_BITS = 12
CHANNELS_MAX = 100_000  # The least recently heard of are forgotten: their origins will tell.

TAKEN_OVER = "taken over by a newer publisher"
OUTNUMBERED = "an ended run of the channel has a newer number than this one; connect again"
_REHOMING_BITS = 8
_TAKEOVER_BITS = EPOCH_CHANCE_BITS + _REHOMING_BITS
_UNITS_BITS = 32  # Of one publisher: years.
_CONFIGS_BITS = 10  # And its configurations, of which the wire has 32 bits in all.


def takeovers(stream_id: StreamId) -> int:
    """How often a run has gone on with another publisher than before."""
    return stream_id.home_epoch >> _TAKEOVER_BITS


def takeover_id(stream_id: StreamId, chance: int) -> StreamId:
    """The same run, taken over; `chance` has its bits at random."""
    assert 0 <= chance < 2**EPOCH_CHANCE_BITS, "chance must not reach into the count"
    epoch = (takeovers(stream_id) + 1) << _TAKEOVER_BITS | chance << _REHOMING_BITS
    return StreamId(stream_id.channel, stream_id.publication, epoch)


def units_from(stream_id: StreamId) -> int:
    """The seq of the first unit of one who takes a run over from another PoP."""
    return stream_id.home_epoch >> _REHOMING_BITS << _UNITS_BITS


def configs_from(stream_id: StreamId) -> int:
    """The number of the first configuration that such a one sends, of each track."""
    return stream_id.home_epoch >> _REHOMING_BITS << _CONFIGS_BITS


class Fencing(enum.Enum):
    """What it means that an origin fences a run of ours off."""

    TAKEN_OVER = "taken over"  # A newer run is live.
    RENUMBER = "renumber"  # The newer run has ended: go on under a newer number.
    OUTNUMBERED = "outnumbered"  # The same, but there is no number to go on under.


class _Channel:
    """What is remembered of one channel."""

    __slots__ = ("fenced_at", "listed", "newest", "own", "taken_over_at", "waiting")

    def __init__(self) -> None:
        self.newest = 0  # The highest number heard of.
        self.own: StreamId | None = None  # The last run that began, or went on, here.
        self.listed: StreamId | None = None  # The last one that the directory had,
        self.waiting = False  # and whether that waited for its publisher.
        self.taken_over_at: float | None = None
        self.fenced_at: float | None = None  # By a newer run, which is not listed as yet.

    def is_elsewhere(self, stream_id: StreamId | None) -> bool:
        """Whether a run is another than our last, and newer."""
        return stream_id is not None and (self.own is None or stream_id > self.own)


class ChannelRuns:
    """The runs of all channels that this PoP has heard of."""

    def __init__(self, channels_max: int = CHANNELS_MAX) -> None:
        self._channels_max = channels_max
        self._channels: dict[str, _Channel] = {}  # The last heard of is last.

    def __len__(self) -> int:
        return len(self._channels)

    def heard(self, stream_id: StreamId) -> None:
        """Note a run by which an origin fences ours off."""
        if stream_id.publication < PUBLICATION_MAX:
            known = self._touch(stream_id.channel)
            known.newest = max(known.newest, stream_id.publication)

    def listed(self, stream_id: StreamId, *, waiting: bool, now: float) -> None:
        """Note a run that the directory lists, as the newest of its channel.

        `waiting`: for its publisher, who comes back if it is taken over now. A takeover of one that
        did not wait counts here too, though it has come about between others.
        """
        self.heard(stream_id)
        known = self._touch(stream_id.channel)
        before, waited = known.listed, known.waiting
        known.listed, known.waiting = stream_id, waiting
        if known.is_elsewhere(stream_id):
            known.fenced_at = None  # From now on the directory tells whether it is live.
            same = before is not None and before.publication == stream_id.publication
            if before is not None and same and not waited:
                newer = takeovers(stream_id) > takeovers(before)
                known.taken_over_at = now if newer else known.taken_over_at

    def begun(self, stream_id: StreamId) -> None:
        """Note a run that begins here, or goes on here under that epoch."""
        self.heard(stream_id)
        self._touch(stream_id.channel).own = stream_id

    def taken_over(self, channel: str, now: float) -> None:
        """Note that a run of ours took the place of one that was live."""
        self._touch(channel).taken_over_at = now

    def is_elsewhere(self, stream_id: StreamId) -> bool:
        """Whether a run that is listed is another PoP's, and not our own last."""
        known = self._channels.get(stream_id.channel)
        return known is None or known.is_elsewhere(stream_id)

    def fenced(self, channel: str, listed: StreamId | None, now: float) -> None:
        """Note that a newer run, live elsewhere, took the place of ours; `listed` as below."""
        known = self._touch(channel)
        known.taken_over_at = now
        if not known.is_elsewhere(listed):
            known.fenced_at = now

    def next_publication(self, channel: str, unix_now: float, chance: int) -> int:
        """Return a number greater than those of earlier runs; `chance` has its bits at random."""
        assert 0 <= chance < 2**PUBLICATION_CHANCE_BITS, "chance must not reach into the time"
        number = int(unix_now * 1000) << PUBLICATION_CHANCE_BITS | chance
        known = self._channels.get(channel)
        return number if known is None else max(number, known.newest + 1)

    def takes_over(
        self,
        channel: str,
        *,
        here: bool,
        listed: StreamId | None,
        waiting: bool = False,
        now: float,
    ) -> bool:
        """Whether a newcomer would take the place of one who is live; raises when it may not.

        `here`: the channel has a publisher at this PoP. `listed`: its newest run in the directory,
        which goes on listing a run of ours for a moment after its end; `waiting`: that waits for
        its publisher, and this is it.
        """
        known = self._channels.get(channel)
        if known is None:
            return here or (listed is not None and not waiting)
        elsewhere = known.is_elsewhere(listed) and not waiting
        unlisted = known.fenced_at is not None and now - known.fenced_at < LISTED_S_MAX
        live = here or elsewhere or unlisted
        if live and known.taken_over_at is not None:
            ago_s = now - known.taken_over_at
            if ago_s < TAKEOVER_INTERVAL_S:
                raise PublishRefusedError(
                    "takeover",
                    f"channel {channel!r} is live and was taken over {ago_s:.0f} s ago; a second"
                    f" time is refused for {TAKEOVER_INTERVAL_S:g} s: do two encoders use the same"
                    " key?",
                    retry_after_s=TAKEOVER_INTERVAL_S - ago_s,
                )
        return live

    def judge_fencing(
        self, own: StreamId, listed: StreamId | None, *, renumbered: int, joins: bool = False
    ) -> Fencing:
        """Say what has fenced off a run that no origin ever took, LISTED_S_MAX after it was told.

        `renumbered`: how often the run was given another number before. `joins`: it was to go on
        with a run, and can begin one of its own instead.
        """
        if listed is not None and listed > own:
            return Fencing.TAKEN_OVER
        known = self._channels.get(own.channel)
        newer = joins or (known is not None and own.publication < known.newest)
        if newer and renumbered < RENUMBERINGS_MAX:
            return Fencing.RENUMBER
        return Fencing.OUTNUMBERED

    def _touch(self, channel: str) -> _Channel:
        known = self._channels.pop(channel, None) or _Channel()
        self._channels[channel] = known
        if len(self._channels) > self._channels_max:
            del self._channels[next(iter(self._channels))]
        return known
