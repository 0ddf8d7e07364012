"""Publishes a source over RTMP to one place or many: encoded once, sent on N connections that
reconnect by themselves.

Live is live: a connection too slow for the source skips to the next random access point, the source
itself is never held up, and a machine too slow for the source leaves frames out.
"""

import math
import os
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol

import trio
from msgspec import Struct

from edged.errors import (
    ConfigError,
    EdgedError,
    PeerLostError,
    PublishRefusedError,
    RemoteProtocolError,
)
from edged.media.access_unit import AccessUnit
from edged.media.track import Kind, Track
from edged.tools.metadata import track_metadata
from edged.wire.rtmp import (
    ClientEvent,
    Closed,
    PeerTimedOut,
    PublishAccepted,
    PublishRefused,
    ReconnectRequested,
    RtmpClientSession,
    RtmpUrl,
    parse_url,
    resolve,
)

PUBLISHERS_MAX = 1_000  # More need a generator in another language, not this one.
CONNECT_TIMEOUT_S = 10.0
SEND_S_MAX = 10.0  # A server that takes nothing for so long is lost.
# Of a track, on average: about two seconds of 30 fps and 48 kHz AAC; then each track skips to its
# next random access point.
QUEUE_UNITS_MAX = 80
GOODBYE_S_MAX = 1.0  # For what is queued at the end, and to say so.
LATE_S_MAX = 0.5  # Later than this, the source leaves out what was due.
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.25, 8.0  # Doubles with each failure in a row.
REFUSALS_MAX = 5  # In a row, of a publisher that had been accepted; then it gives up.
RECEIVE_BYTES = 16 * 1024
UNITS_SENT_AT_ONCE_MAX = 32


class Source(Protocol):
    """Where access units come from, in real time. `take_units` may take milliseconds and runs in a
    thread.
    """

    @property
    def tracks(self) -> Sequence[Track]:
        """All tracks, known from the start."""

    def start(self, unix_us: int) -> None:
        """The time 0 of `next_due_s` is now, and this is its wallclock."""

    def next_due_s(self) -> float | None:
        """When the next units are due, seconds since the start; None at the end."""

    def take_units(self) -> list[AccessUnit]:
        """The units that are due next."""

    def skip_to(self, elapsed_s: float) -> None:
        """Leave out, where possible, what was due before."""

    def request_key_frame(self) -> None:
        """Make the next video unit a random access point, where possible."""

    def close(self) -> None:
        """Give back what the source holds."""


class PublisherReport(Struct, frozen=True, kw_only=True):
    """What happened to one of the publishers, for whoever shows it; never with the key in it."""

    index: int  # From 0, of the publishers.
    place: str  # The URL without its key.
    event: str  # accepted, lost, refused, skipped or ended.
    reason: str = ""
    retry_s: float | None = None  # When it connects again; None if it doesn't.


Report = Callable[[PublisherReport], None]


def _ignore(report: PublisherReport) -> None:
    """Nobody wants to know."""
    del report


class PublishOptions(Struct, frozen=True, kw_only=True):
    """How to publish."""

    reconnect: bool = True
    duration_s: float = math.inf
    tls: ssl.SSLContext | None = (
        None  # For rtmps://; None verifies against the system's authorities.
    )


def expand_urls(url: str, key: str | None = None, count: int = 1) -> list[RtmpUrl]:
    """Return the `count` places to publish to: "{n}" in the URL or key is 1, 2, ...

    Without `key` the URL ends with it. Raises ConfigError, which does not repeat the key.
    """
    if not 1 <= count <= PUBLISHERS_MAX:
        raise ConfigError(f"a count of {count} publishers is not in 1..{PUBLISHERS_MAX}")
    template = url if key is None else f"{url.rstrip('/')}/{key}"
    if count > 1 and "{n}" not in template:
        raise ConfigError('several publishers need "{n}" in the stream key, one key each')
    return [parse_url(template.replace("{n}", str(number))) for number in range(1, count + 1)]


async def publish(
    places: Sequence[RtmpUrl],
    source: Source,
    options: PublishOptions | None = None,
    *,
    report: Report = _ignore,
    unix_now: Callable[[], float],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Publish `source` to all `places` until it ends, `options.duration_s` is over or all
    publishers have given up.

    Started (for `nursery.start`) once the first place has accepted. Raises the last publisher's
    PublishRefusedError or PeerLostError when all of them gave up. Closes the source.
    """
    assert places, "somewhere to publish to"
    fan_out = _FanOut(places, source, options or PublishOptions(), report)
    try:
        async with trio.open_nursery() as nursery:
            for publisher in fan_out.publishers:
                nursery.start_soon(publisher.run)
            with trio.move_on_after(fan_out.options.duration_s):
                await fan_out.accepted.wait()
                if any(publisher.is_running for publisher in fan_out.publishers):
                    task_status.started()
                    await fan_out.pump(unix_now)
            for publisher in fan_out.publishers:
                publisher.finish()
    finally:
        source.close()
    failures = [
        publisher.failure for publisher in fan_out.publishers if publisher.failure is not None
    ]
    if len(failures) == len(fan_out.publishers):
        raise failures[-1]


class _FanOut:
    """The source's side: takes units when they are due and hands each to every publisher."""

    def __init__(
        self, places: Sequence[RtmpUrl], source: Source, options: PublishOptions, report: Report
    ) -> None:
        self.source = source
        self.options = options
        self.report = report
        self.accepted = trio.Event()  # By a first place, or given up by all.
        self.publishers = [_Publisher(index, place, self) for index, place in enumerate(places)]

    def notice_end(self) -> None:
        """A publisher has given up: with the last one, nobody is waited for."""
        if not any(publisher.is_running for publisher in self.publishers):
            self.accepted.set()

    async def pump(self, unix_now: Callable[[], float]) -> None:
        """Pace the source until it ends or no publisher is left."""
        started_at = trio.current_time()
        self.source.start(round(unix_now() * 1_000_000))
        while (due_s := self.source.next_due_s()) is not None:
            await trio.sleep_until(started_at + due_s)
            if not any(publisher.is_running for publisher in self.publishers):
                return
            late_s = trio.current_time() - started_at - due_s
            if late_s > LATE_S_MAX:
                self.source.skip_to(due_s + late_s)
            for unit in await trio.to_thread.run_sync(self.source.take_units):
                for publisher in self.publishers:
                    publisher.offer(unit)


class _Publisher:
    """One connection at a time to one place."""

    def __init__(self, index: int, place: RtmpUrl, fan_out: _FanOut) -> None:
        self.is_running = True
        self.failure: EdgedError | None = None
        self._index = index
        self._home = place
        self._place = place  # Elsewhere once a server has asked it away, until that fails.
        self._fan_out = fan_out
        self._tracks = {track.track_id: track for track in fan_out.source.tracks}
        self._queue_max = QUEUE_UNITS_MAX * len(self._tracks)
        self._queue: list[AccessUnit] = []
        self._filled = trio.Event()
        self._accepted = False  # This connection.
        self._was_accepted = (
            False  # Any connection: a wrong key is not asked again, a restarting server is.
        )
        # Tracks that have begun since the connection or the last skip, video with random access.
        self._synchronised: set[int] = set()
        self._finishing = False
        self._stop = trio.CancelScope()

    def offer(self, unit: AccessUnit) -> None:
        """Queue a unit for this connection, if it is one that takes units."""
        if not self._accepted or self._finishing:
            return
        if len(self._queue) >= self._queue_max:
            self._queue.clear()
            self._synchronised.clear()
            self._report("skipped", f"more than {self._queue_max} units were waiting to be sent")
            self._fan_out.source.request_key_frame()
        if unit.random_access or self._tracks[unit.track_id].kind is not Kind.VIDEO:
            self._synchronised.add(unit.track_id)
        if unit.track_id in self._synchronised:
            self._queue.append(unit)
            self._filled.set()

    def finish(self) -> None:
        """The broadcast is over: send what is queued, say goodbye, and end; give up at once if not
        connected.
        """
        self._finishing = True
        self._filled.set()
        self._stop.deadline = trio.current_time() + (GOODBYE_S_MAX if self._accepted else 0)

    async def run(self) -> None:
        """Connect, publish and connect again until finished or given up."""
        failures = 0
        with self._stop:
            while not self._finishing:
                try:
                    await self._publish_once()
                    self._report("ended")
                    break
                except (PublishRefusedError, PeerLostError) as error:
                    failures = 1 if self._accepted else failures + 1
                    self._accepted = False
                    retry_s = None if self._gives_up(error, failures) else self._backoff_s(failures)
                    event = "refused" if isinstance(error, PublishRefusedError) else "lost"
                    self._report(event, str(error), retry_s)
                    self._place = error.to if isinstance(error, _AskedAwayError) else self._home
                    if retry_s is None:
                        self.failure = error
                        break
                    await trio.sleep(retry_s)
        self.is_running = False
        self._fan_out.notice_end()

    def _gives_up(self, error: EdgedError, failures: int) -> bool:
        if not self._fan_out.options.reconnect or self._finishing:
            return True
        if isinstance(error, PublishRefusedError):
            return not self._was_accepted or failures > REFUSALS_MAX
        return False

    def _backoff_s(self, failures: int) -> float:
        """Double the wait each time; publishers of one process spread out by their index, so as not
        to come in step.
        """
        spread = 0.75 + 0.5 * (self._index * 0.618 % 1.0)
        return float(min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(failures - 1, 10))) * spread

    async def _publish_once(self) -> None:
        """One connection, from the first byte to the last. Raises PublishRefusedError or
        PeerLostError.
        """
        self._queue.clear()
        self._synchronised.clear()
        stream = await _connect(self._place, self._fan_out.options.tls)
        session = RtmpClientSession(now=trio.current_time(), entropy=os.urandom, url=self._place)
        line = _Line(stream, session, self._place)
        try:
            await line.wait_accepted()
            self._accepted = self._was_accepted = True
            self._report("accepted")
            self._fan_out.source.request_key_frame()
            self._fan_out.accepted.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(line.watch)
                await self._send_units(line)
                nursery.cancel_scope.cancel()
        except* (PublishRefusedError, PeerLostError) as group:
            raise _first_of(group) from None
        finally:
            await trio.aclose_forcefully(stream)

    async def _send_units(self, line: "_Line") -> None:
        """Send what is queued as it comes, until the broadcast is finished."""
        session, tracks = line.session, self._tracks
        announced = False
        while True:
            while not self._queue:
                if self._finishing:
                    session.close()
                    await line.flush()
                    return
                self._filled = trio.Event()
                await self._filled.wait()
            units = self._queue[:UNITS_SENT_AT_ONCE_MAX]
            del self._queue[: len(units)]
            if not announced:
                announced = True
                session.send_metadata(track_metadata(list(tracks.values())))
                for track in tracks.values():
                    session.send_track(track, _same_time(units[0], tracks, track))
            for unit in units:
                session.send_unit(unit, tracks[unit.track_id])
            await line.flush()

    def _report(self, event: str, reason: str = "", retry_s: float | None = None) -> None:
        place = self._place.tc_url
        self._fan_out.report(
            PublisherReport(
                index=self._index, place=place, event=event, reason=reason, retry_s=retry_s
            )
        )


class _AskedAwayError(PeerLostError):
    """The server wants the publisher to connect again, perhaps to another place."""

    def __init__(self, reason: str, to: RtmpUrl) -> None:
        self.to = to
        super().__init__(reason)


class _Line:
    """The Trio shell around one `RtmpClientSession`."""

    def __init__(self, stream: trio.abc.Stream, session: RtmpClientSession, place: RtmpUrl) -> None:
        self.session = session
        self._stream = stream
        self._place = place
        self._lock = trio.Lock()

    async def wait_accepted(self) -> None:
        """Go through handshake, connect and publish."""
        while True:
            for event in await self._step():
                if isinstance(event, PublishAccepted):
                    return

    async def watch(self) -> None:
        """Read what the server says while units are sent; ends only by an error."""
        while True:
            await self._step()

    async def flush(self) -> None:
        """Write what the session has to say. Bytes go out in order, from whichever task flushes."""
        async with self._lock:
            data = self.session.data_to_send()
            if not data:
                return
            try:
                with trio.fail_after(SEND_S_MAX):
                    await self._stream.send_all(data)
            except trio.TooSlowError:
                raise PeerLostError(
                    f"{self._place.tc_url} took no data for {SEND_S_MAX:g} s"
                ) from None
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
                raise PeerLostError(f"{self._place.tc_url}: {_why(error)}") from error

    async def _step(self) -> list[ClientEvent]:
        """Flush, wait for bytes or the deadline, and turn what ends the session into an error."""
        await self.flush()
        session = self.session
        try:
            with trio.move_on_at(session.next_timeout()) as timer:
                data = await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise PeerLostError(f"{self._place.tc_url}: {_why(error)}") from error
        now = trio.current_time()
        if timer.cancelled_caught:
            events = session.handle_timeout(now)
        elif data:
            try:
                events = session.receive_data(bytes(data), now)
            except RemoteProtocolError as error:
                raise PeerLostError(f"{self._place.tc_url}: {error}") from error
        else:
            raise PeerLostError(
                f"{self._place.tc_url} closed the connection while {session.step.name.lower()}"
            )
        for event in events:
            self._raise_if_over(event)
        return events

    def _raise_if_over(self, event: ClientEvent) -> None:
        where = self._place.tc_url
        match event:
            case PublishRefused(code, description):
                raise PublishRefusedError(
                    code or "refused", f"{where}: {description or 'no reason given'}"
                )
            case Closed(code, description):
                raise PeerLostError(f"{where} ended the broadcast: {description or code}")
            case ReconnectRequested(tc_url, description):
                reason = f"{where} asks to connect again: {description or 'no reason given'}"
                try:
                    to = resolve(self._place, tc_url)
                except ConfigError:
                    to = self._place
                raise _AskedAwayError(reason, to)
            case PeerTimedOut(reason):
                raise PeerLostError(f"{where}: {reason}")


async def _connect(place: RtmpUrl, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    """Open the connection, with TLS for rtmps. Raises PeerLostError."""
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            stream = await trio.open_tcp_stream(place.host, place.port)
            if place.scheme != "rtmps":
                return stream
            context = tls or ssl.create_default_context()
            secure = trio.SSLStream(
                stream, context, server_hostname=place.host, https_compatible=True
            )
            try:
                await secure.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return secure
    except trio.TooSlowError:
        raise PeerLostError(
            f"{place.tc_url}: no connection within {CONNECT_TIMEOUT_S:g} s"
        ) from None
    except (OSError, trio.BrokenResourceError) as error:
        raise PeerLostError(f"{place.tc_url}: {_why(error)}") from error


def _why(error: BaseException) -> str:
    """Say what lies under Trio's own wrapping, in a line."""
    cause = error
    while isinstance(cause, BaseExceptionGroup) or cause.__cause__ is not None:
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__
        assert inner is not None, "the loop's condition"
        cause = inner
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(cause).lower() or type(cause).__name__


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to tell of: a refusal or an end that the server gave a reason for comes before a
    broken pipe.
    """
    errors = [
        _first_of(error) if isinstance(error, BaseExceptionGroup) else error
        for error in group.exceptions
    ]
    return min(errors, key=lambda error: error.__cause__ is not None)


def _same_time(unit: AccessUnit, tracks: dict[int, Track], track: Track) -> int:
    """The unit's dts in another track's timescale, rounded down."""
    return unit.dts * track.timescale // tracks[unit.track_id].timescale
