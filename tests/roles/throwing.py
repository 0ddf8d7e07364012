"""Exceptions thrown into a whole network in this process, with a stream that must not notice."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest
import trio
from msgspec import Struct
from structlog.testing import capture_logs

import edged.runtime.listeners
from edged.ingest.rtmp_publisher import RtmpPublisher
from edged.roles.irs import IrsRole
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole
from edged.runtime.listeners import ACCEPTS_PER_TURN_MAX, peer_name
from edged.wire.rtmp import Closed
from tests.backbone.network import free_address, until
from tests.e2e.viewer import Viewer
from tests.ingest.rtmp_peer import Encoder, admitted, encoder
from tests.roles.network import KEY, Network, broadcast, configure, raw_network, running
from tests.wire.rtmp.peers import AAC, H264, h264_unit, unit

OTHER_KEY = "another-key-of-bob"
FRAME_S = 1 / 30
AHEAD_FRAMES = 180  # What is there when the viewer comes: `broadcast`'s 6 s.
LINES_MAX = 3  # Of the faults that are thrown: each is logged.

LogLine = MutableMapping[str, Any]
T = TypeVar("T")


class BugError(RuntimeError):
    """What no code of ours expects."""


def fail(*_: object, **__: object) -> NoReturn:
    raise BugError("injected")


class Faults:
    """Makes calls fail, a few times each, and knows whether they did."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.thrown = 0

    def throw(
        self,
        owner: object,
        name: str,
        *,
        times: int = 1,
        when: Callable[..., bool] = lambda *_, **__: True,
    ) -> None:
        """The next `times` calls of `owner.name` raise, of those for which `when` holds."""
        real = getattr(owner, name)
        left = times

        def call(*args: object, **kwargs: object) -> object:
            nonlocal left
            if left and when(*args, **kwargs):
                left -= 1
                self.thrown += 1
                fail()
            return real(*args, **kwargs)

        self._patch.setattr(owner, name, call)

    def break_accepts(self, *, times: int = 1) -> None:
        """The next `times` listeners of ours to be called fail in their loop."""

        class Bound:
            left = times

            def __index__(bound) -> int:  # noqa: N805 - `self` is the outer one
                if bound.left:
                    bound.left -= 1
                    self.thrown += 1
                    fail()
                return ACCEPTS_PER_TURN_MAX

        self._patch.setattr(edged.runtime.listeners, "ACCEPTS_PER_TURN_MAX", Bound())

    def break_trio_accepts(self) -> None:
        """The next listener of Trio's to be called fails in its loop."""
        real = trio.SocketListener.accept

        async def accept(listener: trio.SocketListener) -> trio.SocketStream:
            stream = await real(listener)
            if not self.thrown:
                self.thrown += 1
                await stream.aclose()
                fail()
            return stream

        self._patch.setattr(trio.SocketListener, "accept", accept)


class Setting(Struct, kw_only=True):
    """A network with a healthy stream, and what was logged since it is."""

    network: Network
    irs: IrsRole
    origin: OriginRole
    pop: PopRole
    healthy: Encoder
    viewer: Viewer
    logs: list[LogLine]
    folder: Path
    ends_here: bool = False  # The test has ended the healthy stream itself.

    def failed(self, event: str) -> list[LogLine]:
        """The lines of an event that carry the exception thrown."""
        return [line for line in self.logs if line["event"] == event and _is_bug(line)]

    async def begun_anew(self, role: str, service: str) -> None:
        """A service failed, was logged and counted, and was begun anew."""
        supervisors = {
            "irs": self.irs.supervisor,
            "origin": self.origin.supervisor,
            "pop": self.pop.supervisor,
            "process": self.network.process.supervisor,
        }
        await until(lambda: supervisors[role].restarts[service] > 0)
        lines = self.failed("service failed, begun anew")
        assert {line["service"] for line in lines} == {service}
        text = self.network.process.metrics.render().decode()
        counted = [line for line in text.splitlines() if f'service="{service}"' in line]
        assert [line for line in counted if not line.endswith(" 0.0")]

    @contextlib.asynccontextmanager
    async def victim(self) -> AsyncIterator[Encoder]:
        """A second publisher of the same PoP, who has sent nothing yet."""
        async with encoder(self.pop_address("rtmp"), OTHER_KEY) as peer:
            await peer.accepted()
            yield peer

    def told(self, event: str) -> list[LogLine]:
        """The lines of an event that tell what was thrown."""
        return [
            line
            for line in self.logs
            if line["event"] == event and "BugError(" in str(line.values())
        ]

    def session_of(self, peer: Encoder) -> RtmpPublisher:
        """A publisher's session here."""
        assert isinstance(peer.stream, trio.SocketStream)
        name = peer_name(peer.stream.socket.getsockname())
        (found,) = [
            connection.handler
            for connection in self.pop.pump._connections.values()
            if connection.peer == name
        ]
        assert isinstance(found, RtmpPublisher)
        return found

    def pop_address(self, what: str) -> str:
        return self.network.addresses["pop west"][what]


def _is_bug(line: LogLine) -> bool:
    """Whether a line has the traceback of what was thrown."""
    error = line.get("exc_info")
    if error is True:
        return True  # `logger.exception`, in its `except`.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return isinstance(error, BugError)


async def go_on(peer: Encoder) -> None:
    """Broadcast in real time, behind what `broadcast` has sent, until it is stopped."""
    began_at, sound = trio.current_time(), int(AHEAD_FRAMES * FRAME_S * 48_000 / 1024 + 1) * 1024
    for count in range(10**6):
        frame = AHEAD_FRAMES + count
        await trio.sleep_until(began_at + count * FRAME_S)
        if peer.closed or any(isinstance(event, Closed) for event in peer.events):
            return  # Whether it may be is the test's to say.
        peer.session.send_unit(h264_unit(frame * 3000, key=frame % 60 == 0), H264)
        while sound / 48_000 < (frame + 1) * FRAME_S:
            peer.session.send_unit(unit(AAC, sound, b"sound"), AAC)
            sound += 1024
        with contextlib.suppress(trio.BrokenResourceError):
            await peer.flush()


@contextlib.contextmanager
def logged() -> Iterator[list[LogLine]]:
    """What is logged in the block, printed if it fails."""
    with capture_logs() as logs:
        try:
            yield logs
        except BaseException:
            print(*logs, sep="\n")
            raise


@contextlib.asynccontextmanager
async def healthy_network(
    folder: Path,
    prepare: Callable[[list[dict[str, Any]]], None] = lambda _: None,
    **tables: object,
) -> AsyncIterator[Setting]:
    """Run it; at the end the healthy stream must have lost nothing, and its viewer neither.

    `tables` are the PoP's; `prepare` may change all roles' files.
    """
    irs, origin, pop = raw_network(folder)
    keys = pop["stream_keys"]
    assert isinstance(keys, dict)
    keys["static"].append({"channel": "bob", "key": OTHER_KEY})
    pop["playback"] = {"listen": free_address()}  # The same when it listens anew.
    pop.update(tables)
    for raw in (origin, pop):
        client = raw["irs_client"]
        assert isinstance(client, dict)
        client["telemetry_interval_s"] = 0.1
    prepare([irs, origin, pop])
    with logged() as logs:
        async with (
            running(*map(configure, (irs, origin, pop))) as network,
            admitted(network.rtmp(), KEY) as healthy,
            trio.open_nursery() as nursery,
        ):
            await broadcast(healthy)
            nursery.start_soon(go_on, healthy)
            viewer = Viewer(f"http://{network.addresses['pop west']['http']}", "alice")
            await viewer.join()
            nursery.start_soon(lambda: viewer.watch(join=False))
            roles = {role.name: role for role in network.process.roles}
            setting = Setting(
                network=network,
                irs=_as(IrsRole, roles["irs"]),
                origin=_as(OriginRole, roles["origin fra1"]),
                pop=_as(PopRole, roles["pop west"]),
                healthy=healthy,
                viewer=viewer,
                logs=logs,
                folder=folder,
            )
            await _watched_further(setting)
            logs.clear()
            yield setting
            if not setting.ends_here:
                await _check_healthy(setting)
            nursery.cancel_scope.cancel()


async def _watched_further(setting: Setting) -> None:
    """The viewer gets several parts more of each rendition."""
    before = {name: len(track.arrivals) for name, track in setting.viewer.tracks.items()}
    await until(
        lambda: all(
            len(track.arrivals) >= before[name] + 3 for name, track in setting.viewer.tracks.items()
        )
    )


async def _check_healthy(setting: Setting) -> None:
    await _watched_further(setting)
    assert not setting.healthy.closed
    for track in setting.viewer.tracks.values():
        track.check_flow()
    live, there = setting.pop.hub.get("alice"), setting.origin.hub.get("alice")
    assert live is not None
    assert there is not None
    units = live.units
    await until(lambda: there.units >= units)
    (inbound,) = [i for i in setting.origin.server.streams if i.stream_id.channel == "alice"]
    assert inbound.units_lost == 0
    ended = [line for line in setting.logs if line["event"] == "publisher ended"]
    assert not [line for line in ended if line["channel"] == "alice"]


def _as(kind: type[T], value: object) -> T:
    assert isinstance(value, kind)
    return value
