"""A bug that one stream of many meets costs that stream: no session, no service, no newcomer.

Two channels are live, alice and bob, each with a viewer. Each case puts a `Bug` where alice, or one
more, is handled among the others. Whatever it costs alice: bob's run, his encoder and his viewers
go on, sessions of the backbone and services are not begun anew, a newcomer can publish and is
found, and the bug is in the log with its traceback.
"""

import contextlib
import itertools
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio
from msgspec import Struct

from edged.playback import hls
from edged.roles.all_in_one import Process
from edged.roles.irs import IrsRole
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole
from edged.runtime import supervision
from edged.runtime.faults import count_faults
from edged.runtime.hub import LiveStream
from edged.wire.rtmp import Closed, PublishAccepted
from tests.ingest.rtmp_peer import Encoder, encoder, until
from tests.roles.network import KEY, Network, configure, raw_network, running
from tests.wire.rtmp.peers import AAC, H264, h264_unit, unit

pytestmark = pytest.mark.pure

FRAMES_PER_S = 30
GOES_ON_S = 10.0  # For all of bob's to be shown to go on; it takes a fraction of it.
BOB_KEY = "key-of-bob"
CAROL_KEY = "key-of-carol"
SESSIONS = 4  # Of a PoP with an origin; both ends tell of an end.


class Bug:
    """A function that raises, each time or so often, when its arguments are meant."""

    def __init__(
        self,
        instead_of: Callable[..., object],
        *,
        times: float = math.inf,
        meant: Callable[..., bool] = lambda *_, **__: True,
        after: bool = False,
    ) -> None:
        self.instead_of, self.times, self.meant, self.after = instead_of, times, meant, after
        self.raised = 0

    def __call__(self, *args: object, **named: object) -> object:
        if self.raised < self.times and self.meant(*args, **named):
            self.raised += 1
            if self.after:
                self.instead_of(*args, **named)
            raise RuntimeError("a bug was put here")
        return self.instead_of(*args, **named)


class Running(Struct):
    """The network under a bug."""

    network: Network
    alice: Encoder
    bob: Encoder
    lines: list[structlog.typing.EventDict]
    patch: pytest.MonkeyPatch
    nursery: trio.Nursery

    @property
    def process(self) -> Process:
        return self.network.process

    @property
    def pop(self) -> PopRole:
        return next(role for role in self.process.roles if isinstance(role, PopRole))

    @property
    def origin(self) -> OriginRole:
        return next(role for role in self.process.roles if isinstance(role, OriginRole))

    @property
    def irs(self) -> IrsRole:
        return next(role for role in self.process.roles if isinstance(role, IrsRole))

    def put(
        self,
        place: object,
        name: str,
        *,
        times: float = math.inf,
        meant: Callable[..., bool] = lambda *_, **__: True,
        after: bool = False,
    ) -> Bug:
        bug = Bug(getattr(place, name), times=times, meant=meant, after=after)
        self.patch.setattr(place, name, bug)
        return bug

    def stream(self, channel: str, role: PopRole | OriginRole | None = None) -> LiveStream:
        found = (role or self.pop).hub.get(channel)
        assert found is not None, f"{channel} is not live"
        return found


class Case(Struct, frozen=True):
    """Where a bug is put, and how it is met, if not by what goes on anyway."""

    name: str
    put: Callable[[Running], Bug]
    meet: Callable[[Running], object] | None = None
    alice_goes_on: bool = True


def is_about(channel: str, *args: object, **named: object) -> bool:
    """Whether a call is about a channel."""
    given = (*args, *named.values())
    return any(channel in repr(getattr(arg, "channel", arg)) for arg in given)


is_alice = partial(is_about, "alice")


CASES: list[Case] = []


def case(
    *, alice_goes_on: bool = True, meet: Callable[[Running], object] | None = None
) -> Callable[[Callable[[Running], Bug]], Callable[[Running], Bug]]:
    """Make a function that puts a bug a case."""

    def add(put: Callable[[Running], Bug]) -> Callable[[Running], Bug]:
        CASES.append(Case(put.__name__, put, meet, alice_goes_on))
        return put

    return add


async def meet_newcomer(at: Running) -> None:
    """Somebody publishes carol, until told that it does not go."""
    async with encoder(at.network.rtmp(), CAROL_KEY) as peer:
        at.nursery.start_soon(publish_once_accepted, peer)
        await until(lambda: peer.closed)


async def publish_once_accepted(peer: Encoder) -> None:
    await until(lambda: PublishAccepted() in peer.events or is_over(peer))
    if not is_over(peer):
        await publish(peer)


def is_over(peer: Encoder) -> bool:
    """Whether an encoder has been closed on, or told that it will be."""
    return peer.closed or any(isinstance(event, Closed) for event in peer.events)


@case(alice_goes_on=False)
def forwarding_read(at: Running) -> Bug:
    return at.put(at.pop.uplinks.placements["alice"].forwarding._source, "read", times=1)


@case()
def placing_one(at: Running) -> Bug:
    return at.put(at.pop.uplinks.placements["alice"], "unanswered_s")


@case(alice_goes_on=False)
def acks(at: Running) -> Bug:
    return at.put(at.pop.uplinks.placements["alice"].forwarding, "acked")


def describe_alice(at: Running) -> None:
    entry = at.origin.server._directory.get("alice")
    assert entry is not None
    stream = at.stream("alice", at.origin)
    for title in ("one", "two"):
        stream.grant = stream.grant.described(
            type(stream.grant.description)(title=title, category="", labels=())
        )
    at.origin.server._directory._changed.add("alice")


@case(meet=describe_alice)
def directory_placing(at: Running) -> Bug:
    return at.put(at.pop.uplinks.placing, "listed", meant=is_alice)


@case(meet=describe_alice)
def directory_parts(at: Running) -> Bug:
    return at.put(at.pop.uplinks.parts, "listed", meant=is_alice)


def drop_links(at: Running) -> None:
    for session in list(at.pop.uplinks._links["fra1"].link._sessions.values()):
        session.connection.abort("the path broke")


@case(meet=drop_links, alice_goes_on=False)
def offering(at: Running) -> Bug:
    return at.put(at.pop.uplinks.placements["alice"].forwarding, "offer")


@case(meet=drop_links, alice_goes_on=False)
def accepted(at: Running) -> Bug:
    return at.put(at.pop.uplinks.placements["alice"].forwarding, "accepted")


@case()
def playback_sweep_of_one(at: Running) -> Bug:
    at.patch.setattr(at.pop.hls, "_unwatched_s", 0.0)
    return at.put(at.pop.hls, "_unsubscribe", meant=is_alice, times=2)


@case(meet=meet_newcomer)
def origin_closes(at: Running) -> Bug:
    at.put(at.origin.service, "open", meant=partial(is_about, "carol"))
    return at.put(at.origin.service, "close", meant=partial(is_about, "carol"))


@contextlib.asynccontextmanager
async def live(folder: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """The network, both encoders, and all that is logged."""
    lines: list[structlog.typing.EventDict] = []

    def keep(
        _: object, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        error = event.get("exc_info")
        lines.append(
            {**event, "level": method, "exc_info": sys.exception() if error is True else error}
        )
        raise structlog.DropEvent

    structlog.configure(processors=[count_faults, keep], cache_logger_on_first_use=False)
    for name in ("BACKOFF_S_MIN", "BACKOFF_S_MAX"):
        patch.setattr(supervision, name, 0.02)
    patch.setattr(hls, "SWEEP_INTERVAL_S", 0.05)
    raws = raw_network(folder)
    keys = {"alice": KEY, "bob": BOB_KEY, "carol": CAROL_KEY}
    static = [{"channel": channel, "key": key} for channel, key in keys.items()]
    raws[2]["stream_keys"] = {"static": static}
    raws[2]["pop"] = {"name": "west", "publisher_grace_s": 0.0}
    client = dict(raws[2]["irs_client"])  # type: ignore[call-overload]
    client |= {"table_file": str(folder / "table"), "persist_interval_s": 0.1}
    raws[2]["irs_client"] = client | {"telemetry_interval_s": 0.1}
    async with (
        running(*map(configure, raws)) as network,
        encoder(network.rtmp(), KEY) as alice,
        encoder(network.rtmp(), BOB_KEY) as bob,
        trio.open_nursery() as nursery,
    ):
        await alice.accepted()
        await bob.accepted()
        for peer in (alice, bob):
            nursery.start_soon(publish, peer)
        for channel in ("alice", "bob"):
            with trio.fail_after(GOES_ON_S):
                while not await newest(network, channel):  # noqa: ASYNC110 - over HTTP
                    await trio.sleep(0.02)
        yield Running(network, alice, bob, lines, patch, nursery)
        nursery.cancel_scope.cancel()


async def publish(peer: Encoder) -> None:
    """H.264 and AAC, six times as fast as they play, until the encoder is closed on."""
    peer.session.send_metadata({"framerate": 30.0})
    peer.session.send_track(H264)
    peer.session.send_track(AAC)
    sound = 0
    for frame in itertools.count():
        if is_over(peer):
            return
        peer.session.send_unit(h264_unit(frame * 3000, key=frame % 30 == 0), H264)
        while sound / 48_000 < (frame + 1) / FRAMES_PER_S:
            peer.session.send_unit(unit(AAC, sound, b"sound"), AAC)
            sound += 1024
        try:
            await peer.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        await trio.sleep(1 / FRAMES_PER_S / 6)


async def newest(network: Network, channel: str) -> bytes:
    """The last line about media in a channel's playlist."""
    status, body = await network.get(f"/live/{channel}/master.m3u8")
    if status != 200:
        return b""
    media = body.decode().splitlines()[-1]
    status, body = await network.get(f"/live/{channel}/{media}")
    found = [line for line in body.splitlines() if line.startswith(b"#EXT-X-PART:")]
    return found[-1] if found else b""


async def goes_on(at: Running, channel: str) -> None:
    """A channel's publisher is there, and its viewers get new media."""
    with trio.fail_after(GOES_ON_S):
        seen: set[bytes] = set()
        while len(seen - {b""}) < 3:
            seen.add(await newest(at.network, channel))
            await trio.sleep(0.05)


@pytest.mark.parametrize("where", CASES, ids=lambda one: one.name)
async def test_a_bug_of_one_ends_nothing_of_the_others(
    where: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live(tmp_path, monkeypatch) as at:
        bobs_run = at.stream("bob").stream_id
        bug = where.put(at)
        met = where.meet(at) if where.meet is not None else None
        if isinstance(met, Awaitable):
            await met
        await until(lambda: bug.raised)
        await trio.sleep(0.3)
        told = [line for line in at.lines if "a bug was put here" in repr(line["exc_info"])]
        assert told, [line["event"] for line in at.lines[-20:]]
        await goes_on(at, "bob")
        if where.alice_goes_on:
            await goes_on(at, "alice")
        if where.meet is not meet_newcomer:
            await check_newcomer(at)
        assert at.stream("bob").stream_id.publication == bobs_run.publication, "the same run"
        assert not at.bob.closed, "its encoder has not noticed"
        restarts = +(at.pop.supervisor.restarts + at.origin.supervisor.restarts)
        assert not restarts, "no service was begun anew"
        ended = [line for line in at.lines if line["event"] == "backbone session ended"]
        assert len(ended) == (2 * SESSIONS if where.meet is drop_links else 0), "nor a session"
        at.patch.undo()


async def check_newcomer(at: Running) -> None:
    """Who begins to publish now is found by viewers."""
    async with encoder(at.network.rtmp(), CAROL_KEY) as peer:
        at.nursery.start_soon(publish_once_accepted, peer)
        await goes_on(at, "carol")
