"""The contract between edged and an ingest plug-in, the same for the built-in ones and for yours.

A plug-in is an `IngestPlugin` found through the entry-point group `edged.ingest`. Its `serve` gets
its own config Struct (table `[ingest.NAME]`) and a `Door`: through it publishers enter, and what
the network wants of them comes back through their `PublisherControl`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import trio
from msgspec import Struct

from edged.media.stream_clock import StreamClock
from edged.media.track import AccessUnit, Track
from edged.runtime.hub import LiveStream
from edged.runtime.pump import Pump

if TYPE_CHECKING:
    from edged.media.stream import Grant

PUBLISH_TIMEOUT_S = 10.0  # From the request to the grant; encoders give up at about that time.
DRAINING = "drain: this PoP is draining; connect again"  # What a drained publisher is told.

# Checks a table `[ingest.NAME]` and raises ConfigError if it cannot be taken into use; returns what
# takes it into use, which is called at once if the rest of the file is in order too.
PrepareReload = Callable[[Struct], Callable[[], None]]


class PublishRequest(Struct, frozen=True, kw_only=True):
    """What a publisher asks for. `stream_key` is a secret: it goes into no log and no message."""

    protocol: str  # "rtmp", "rtmps", ...
    app: str
    stream_key: str
    peer: str
    encoder: str = ""

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"PublishRequest({', '.join(fields)})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The fields as rich's tracebacks show them."""
        fields = super().__rich_repr__()
        return [(name, "<hidden>" if name == "stream_key" else value) for name, value in fields]


class PublisherControl(Protocol):
    """What the network wants of a publisher; a plug-in does what its protocol can."""

    def stop(self, code: str, reason: str) -> None:
        """End the session and tell the broadcaster why (takeover, kick)."""

    def drain(self, reconnect_url: str | None) -> None:
        """This PoP wants to be rid of the publisher, who shall publish elsewhere.

        A protocol that can ask a broadcaster to reconnect does so and goes on taking what comes
        until it has left; `reconnect_url` says where to, None by the address that it has. All
        others end the session, telling why: encoders connect again by themselves. Who is still
        there at the drain's deadline is stopped.
        """
        del reconnect_url
        self.stop("Rejected", DRAINING)

    def want_key_frame(self) -> None:
        """A reader needs a random access point soon; a protocol without the means ignores it."""

    def cap_bitrate(self, bits_per_second: int) -> None:
        """Ask the encoder not to exceed this rate, where the protocol can say so."""


class Publication:
    """An accepted session: where a plug-in puts its units. All of it is synchronous."""

    def __init__(
        self,
        stream: LiveStream,
        *,
        wallclock_us: Callable[[], int],
        close: Callable[[LiveStream, str], None],
    ) -> None:
        self.stream = stream
        self.grant: Grant = stream.grant
        self._wallclock_us = wallclock_us
        self._close = close
        self._clock = StreamClock()
        self._seq = stream.ring.next_seq

    @property
    def ended(self) -> str | None:
        """Why the publication is over, if it is."""
        return self.stream.ended

    def set_track(self, track: Track) -> None:
        """Announce a track or its new configuration, before the units that need it."""
        if self.stream.ended is None:
            self.stream.set_track(track)

    def append(self, units: Sequence[AccessUnit]) -> None:
        """Take units in order of arrival; numbers them and gives them the stream's wallclock."""
        if self.stream.ended is not None:
            return
        seq = self._seq
        tracks, clock = self.stream.tracks, self._clock
        for unit in units:
            timescale = tracks[unit.track_id].timescale
            unit.seq = seq
            if (anchor := clock.anchor) is not None and not unit.discontinuity:
                unit.wallclock_us = anchor.wallclock_us(unit.pts, timescale)
            else:
                unit.wallclock_us = clock.stamp(
                    unit.track_id,
                    unit.pts,
                    timescale,
                    self._wallclock_us,
                    discontinuity=unit.discontinuity,
                )
            seq += 1
        self._seq = seq
        self.stream.append(units)

    def end(self, reason: str) -> None:
        """The publisher left, or was made to."""
        self._close(self.stream, reason)


class Door(Protocol):
    """What edged offers a plug-in."""

    pump: Pump

    async def publish(self, request: PublishRequest, control: PublisherControl) -> Publication:
        """Check the key, place the stream; raises `PublishRefusedError` with code and reason."""

    def on_reload(self, name: str, prepare: PrepareReload) -> None:
        """Have `prepare` called with the table of the plug-in `name` when the file is read again.

        It is called only if no key beside `IngestPlugin.live_keys` has changed.
        """


class ServePlugin(Protocol):
    """A plug-in's main task: listen, and let publishers in through the door."""

    def __call__(
        self, config: Struct, door: Door, *, task_status: trio.TaskStatus[dict[str, str]]
    ) -> Awaitable[None]:
        """Serve until cancelled; starts with its listeners' names and bound addresses."""


class IngestPlugin(Struct, frozen=True, kw_only=True):
    """What the entry point names."""

    name: str
    config_type: type[Struct]  # Decoded from `[ingest.NAME]`; unknown keys are errors.
    serve: ServePlugin
    codecs: tuple[str, ...]  # Of `edged.media.track.Codec`: what it can carry into the network.
    # Keys of its table that can change while it runs, those of tables inside as "tls.key": how they
    # take effect. All others need a restart. With any, `serve` calls `Door.on_reload`.
    live_keys: Mapping[str, str] = {}
