"""A channel's runs as one PoP knows them: how a new one is numbered, and who may take over.

A run is newer than another by its number: Unix time in milliseconds, then chance. But clocks differ
and are set back. So a new run is numbered above every run of its channel heard of here, those that
have ended included; and one that an origin fences off, though nothing newer is live, gets a number
above the one that fenced it.

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
CHANNELS_MAX = 100_000  # The least recently heard of are forgotten: their origins will tell.

TAKEN_OVER = "taken over by a newer publisher"
OUTNUMBERED = "an ended run of the channel has a newer number than this one; connect again"


class Fencing(enum.Enum):
    """What it means that an origin fences a run of ours off."""

    TAKEN_OVER = "taken over"  # A newer run is live.
    RENUMBER = "renumber"  # The newer run has ended: go on under a newer number.
    OUTNUMBERED = "outnumbered"  # The same, but there is no number to go on under.


class _Channel:
    """What is remembered of one channel."""

    __slots__ = ("fenced_at", "newest", "own", "taken_over_at")

    def __init__(self) -> None:
        self.newest = 0  # The highest number heard of.
        self.own = 0  # Of the last run that began here.
        self.taken_over_at: float | None = None
        self.fenced_at: float | None = None  # By a newer run, which is not listed as yet.


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

    def listed(self, stream_id: StreamId) -> None:
        """Note a run that the directory lists, as the newest of its channel."""
        self.heard(stream_id)
        known = self._touch(stream_id.channel)
        if stream_id.publication > known.own:
            known.fenced_at = None  # From now on the directory tells whether it is live.

    def begun(self, stream_id: StreamId) -> None:
        """Note a run that begins here."""
        self.heard(stream_id)
        self._touch(stream_id.channel).own = stream_id.publication

    def taken_over(self, channel: str, now: float) -> None:
        """Note that a run of ours took the place of one that was live."""
        self._touch(channel).taken_over_at = now

    def fenced(self, channel: str, listed: StreamId | None, now: float) -> None:
        """Note that a newer run, live elsewhere, took the place of ours; `listed` as below."""
        known = self._touch(channel)
        known.taken_over_at = now
        if listed is None or listed.publication <= known.own:
            known.fenced_at = now

    def next_publication(self, channel: str, unix_now: float, chance: int) -> int:
        """Return a number greater than those of earlier runs; `chance` has its bits at random."""
        assert 0 <= chance < 2**PUBLICATION_CHANCE_BITS, "chance must not reach into the time"
        number = int(unix_now * 1000) << PUBLICATION_CHANCE_BITS | chance
        known = self._channels.get(channel)
        return number if known is None else max(number, known.newest + 1)

    def takes_over(self, channel: str, *, here: bool, listed: StreamId | None, now: float) -> bool:
        """Whether a new run would take the place of a live one; raises when it may not.

        `here`: the channel is live at this PoP. `listed`: its newest run in the directory, which
        goes on listing a run of ours for a moment after its end.
        """
        known = self._channels.get(channel)
        if known is None:
            return here or listed is not None
        elsewhere = listed is not None and listed.publication > known.own
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

    def judge_fencing(self, own: StreamId, listed: StreamId | None, *, renumbered: int) -> Fencing:
        """Say what has fenced off a run that no origin ever took, LISTED_S_MAX after it was told.

        `renumbered`: how often the run was given another number before.
        """
        if listed is not None and listed > own:
            return Fencing.TAKEN_OVER
        known = self._channels.get(own.channel)
        newer = known is not None and own.publication < known.newest
        if newer and renumbered < RENUMBERINGS_MAX:
            return Fencing.RENUMBER
        return Fencing.OUTNUMBERED

    def _touch(self, channel: str) -> _Channel:
        known = self._channels.pop(channel, None) or _Channel()
        self._channels[channel] = known
        if len(self._channels) > self._channels_max:
            del self._channels[next(iter(self._channels))]
        return known
