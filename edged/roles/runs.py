"""The runs that are published at a PoP: how they end, wait for their publishers, and are let go of.

A run outlives its publisher: after a loss it waits, for the time of the grace. So it does when this
PoP drains, for its publisher may come back at another.
"""

import math

import structlog
import trio

from edged.errors import PublishRefusedError
from edged.ingest.plugin import Publication, PublisherControl, PublishRequest
from edged.media.routing import RouteRequest
from edged.policy.grace import Grace
from edged.policy.stream_keys import StreamKeys
from edged.roles.descriptions import Descriptions
from edged.roles.placing import Placing
from edged.roles.telling import Telling
from edged.runtime.faults import contained
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump

KEY_FRAME_S_MIN = 1.0  # Between two requests to one publisher: many readers may begin at once.
LATE_S_MAX = 0.5  # Our timer later than this has slept, and who has come back may lie unread.

logger = structlog.get_logger("edged.pop")


class Run:
    """A run that is published here, or waits for who published it."""

    def __init__(self, stream: LiveStream, request: PublishRequest, route: RouteRequest) -> None:
        self.stream = stream
        self.request = request  # Of the publisher that it has, or had.
        self.route = route
        self.control: PublisherControl | None = None  # None while it waits.
        self.publication: Publication | None = None
        self.takes_over = False  # Who joins, from one that was live until now.
        self.live = False  # That it has begun, or goes on here, has been told.
        self.taken_over = False  # It goes on elsewhere, or a newer one is there.
        self.leaves_until = -math.inf  # Until then its publisher, asked to go elsewhere, may.
        self.key_frame_wanted_at = -math.inf
        self.origin = ""  # While the run is another PoP's: where it is to go on from here.


class Runs:
    """All runs of one PoP."""

    def __init__(
        self,
        pump: Pump,
        hub: Hub,
        placing: Placing,
        descriptions: Descriptions,
        telling: Telling,
        *,
        grace_s: float,
    ) -> None:
        self.pump = pump
        self._telling = telling
        self._hub, self._placing, self._descriptions = hub, placing, descriptions
        self._grace_s = grace_s
        self._grace = Grace(grace_s)
        self._runs: dict[str, Run] = {}  # By channel.
        self._emptied = trio.Event()
        self._waits = trio.Event()

    async def run(self) -> None:
        """End the runs whose publishers do not come back, until cancelled."""
        while True:
            due = self._grace.next_timeout()
            with trio.move_on_at(due) as timer:
                await self._waits.wait()
            if timer.cancelled_caught:
                now = self.pump.now()
                if now - due > LATE_S_MAX:
                    self._grace.slept(now - due + LATE_S_MAX)
                self.tick(self.pump.now())
            else:
                self._waits = trio.Event()

    def tick(self, now: float) -> None:
        """End the runs whose grace is over."""
        for channel in self._grace.expired(now):
            run = self._runs[channel]
            if run.control is not None:  # Whether that is who can go on will show at once.
                self._grace.put_off(channel, now)
            else:
                self._end(run, f"the publisher did not come back within {self._grace_s:g} s")

    @property
    def waiting(self) -> int:
        """Runs that wait for their publisher."""
        return sum(run.control is None for run in self._runs.values())

    def stop_all(self, code: str, reason: str) -> None:
        """Tell every publisher why it has to go; runs without one end."""
        for run in list(self._runs.values()):
            if run.control is not None:
                stop_publisher(run.stream.channel, run.control, code, reason)
            else:
                self._end(run, reason)

    async def wait_empty(self) -> None:
        """Wait until every publisher is gone."""
        while self._runs:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def want_key_frame(self, stream: LiveStream) -> None:
        """A reader needs a random access point soon: ask the publisher, if its protocol can.

        Once in KEY_FRAME_S_MIN: a reader for whom the frame asked for came too early asks again.
        """
        run, now = self._of(stream), self.pump.now()
        if run is None or run.control is None or now < run.key_frame_wanted_at + KEY_FRAME_S_MIN:
            return
        run.key_frame_wanted_at = now
        with contained(logger, "publisher failed to be asked", channel=stream.channel):
            run.control.want_key_frame()

    # What operators want.

    def use_grace(self, grace_s: float) -> None:
        """Another time for runs whose publishers are lost from now on."""
        self._grace_s = grace_s
        self._grace.reconfigure(grace_s)

    @property
    def published(self) -> list[LiveStream]:
        """What is published here now, or waits for its publisher."""
        return [run.stream for run in self._runs.values()]

    def drain(self, stream: LiveStream, reconnect_url: str | None) -> None:
        """Have a publisher go elsewhere, if it is still here; the run waits for it meanwhile."""
        run = self._of(stream)
        if run is not None and run.control is not None:
            run.leaves_until = math.inf
            run.control.drain(reconnect_url)

    def drain_undone(self) -> None:
        """Who was asked to go elsewhere may be on its way; one that stays has an end of its own."""
        until = self.pump.now() + self._grace_s
        for run in self._runs.values():
            run.leaves_until = min(run.leaves_until, until)

    def stop(self, stream: LiveStream, code: str, reason: str) -> None:
        """End a run now, and tell its publisher why, if it has one."""
        run = self._of(stream)
        if run is not None:
            control = run.control
            self._end(run, reason)  # At once, whatever the plug-in would wait for.
            if control is not None:
                stop_publisher(stream.channel, control, code, reason)

    def find_invalid(self, keys: StreamKeys, unix_now: float) -> list[str]:
        """The channels that are live though their key would no longer be let in."""
        invalid = []
        for channel, run in self._runs.items():
            request = run.request
            try:
                grant = keys.check(request.app, request.stream_key, unix_now, request.protocol)
            except PublishRefusedError:
                invalid.append(channel)
            else:
                if grant.channel != channel:
                    invalid.append(channel)
        return sorted(invalid)

    def _of(self, stream: LiveStream) -> Run | None:
        run = self._runs.get(stream.channel)
        return run if run is not None and run.stream is stream else None

    # It leaves.

    def _close(self, publication: Publication, reason: str, *, lost: bool) -> None:
        run = self._runs.get(publication.stream.channel)
        if run is None or run.publication is not publication:
            return  # Replaced, or given up.
        leaves = self.pump.now() < run.leaves_until
        if (lost or leaves) and self._may_wait(run):
            self._wait(run, reason)
        else:
            self._end(run, reason)

    def _may_wait(self, run: Run) -> bool:
        stream = run.stream
        alive = stream.ended is None and stream.units > 0 and not run.origin
        return self._grace.enabled and alive and stream.channel in self._placing.placements

    def _wait(self, run: Run, reason: str) -> None:
        stream, now = run.stream, self.pump.now()
        run.control = run.publication = None
        run.takes_over, run.leaves_until = False, -math.inf
        if stream.waiting_since is None:
            stream.waiting_since = now
            self._placing.waiting_changed(stream)
        for channel in self._grace.begin(stream.channel, now):
            self._end(self._runs[channel], "too many wait for their publishers")
        self._waits.set()
        self._telling.lost(stream, reason, self._grace_s)
        logger.warning(
            "publisher lost, the stream waits for it",
            channel=stream.channel,
            publication=f"{stream.stream_id.publication:x}",
            reason=reason,
            grace_s=self._grace_s,
        )

    def _end(self, run: Run, reason: str) -> None:
        """A run is over."""
        if run.control is None:
            logger.info(
                "stream ended without its publisher", channel=run.stream.channel, why=reason
            )
        self._forget(run, reason)
        self._placing.end(run.stream)
        if run.taken_over:
            self._telling.taken_over(run.stream)
        elif run.live:
            self._telling.went_offline(run.stream, reason, self.pump.now())
        self._descriptions.ended(run.stream.channel)

    def _forget(self, run: Run, reason: str) -> None:
        channel = run.stream.channel
        self._hub.close(run.stream, reason)
        if self._runs.get(channel) is run:
            self._grace.end(channel)
            del self._runs[channel]
        if not self._runs:
            self._emptied.set()

    def _give_up(self, run: Run, error: PublishRefusedError) -> None:
        """Stop a publisher that was let in, or end the wait for one."""
        run.taken_over = error.code == "fenced"
        control = run.control
        self._end(run, f"{error.code}: {error.reason}")  # At once: nobody is to join it any more.
        if control is not None:
            tell_given_up(run.stream.channel, control, error)


def stop_publisher(channel: str, control: PublisherControl, code: str, reason: str) -> None:
    """Stop a publisher; its plug-in's bug is nobody else's: who takes over, who comes next."""
    try:
        control.stop(code, reason)
    except Exception:
        logger.exception("publisher failed to be stopped", channel=channel, reason=reason)


def tell_given_up(channel: str, control: PublisherControl, error: PublishRefusedError) -> None:
    """Stop a publisher that was let in; the log has what it is not told."""
    logger.warning(
        "publication given up",
        channel=channel,
        code=error.code,
        reason=error.reason,
        detail=error.detail or None,
    )
    if error.code == "fenced":  # By a newer publisher, or by the number of one that has ended.
        stop_publisher(channel, control, "Rejected", error.reason)
    else:
        stop_publisher(channel, control, "Failed", f"{error.code}: {error.reason}")
