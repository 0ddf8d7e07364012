"""A routing network in one process: IRS, PoPs and origins joined by memory streams."""

import random
from collections.abc import Awaitable, Callable

import trio
from trio.testing import memory_stream_pair

from edged.irs.client import IrsClientConfig, OriginClient, PopClient
from edged.irs.service import SESSIONS_MAX, IrsConfig, IrsService
from edged.media.routing import ORIGINS_MAX, OriginReport, ReportedState
from edged.policy.pop_view import PopView
from edged.runtime.tls import Identity
from edged.wire.table import OriginHello

NOW_UNIX = 1_700_000_000.0
CLIENT = IrsClientConfig(addresses=("127.0.0.1:1",))


def entropy_from(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes  # noqa: S311 - a test's nonces


class Origin:
    """An origin's side, with room that tests change."""

    def __init__(self, name: str, *, free: int = 100) -> None:
        self.name = name
        self.free = free
        self.incarnation = 1
        self.state = ReportedState.UP
        hello = OriginHello(origin=name, incarnation=1, address=f"{name}:1941")
        self.client = OriginClient(CLIENT, hello, self.report)

    def report(self) -> OriginReport:
        free = self.free
        return OriginReport(self.name, self.incarnation, self.state, 100, (free, free, free))


class Network:
    """IRS over memory streams; use inside a nursery."""

    def __init__(
        self,
        nursery: trio.Nursery,
        config: IrsConfig | None = None,
        *,
        sessions_max: int = SESSIONS_MAX,
        origins_max: int = ORIGINS_MAX,
    ) -> None:
        self.nursery = nursery
        self.irs = IrsService(
            config or IrsConfig(),
            entropy=entropy_from(1),
            now_unix=lambda: NOW_UNIX,
            sessions_max=sessions_max,
            origins_max=origins_max,
        )
        nursery.start_soon(self.irs.run_planning)
        self.reasons: dict[str, str] = {}

    def join(
        self,
        name: str,
        run_stream: Callable[[trio.abc.Stream, str], Awaitable[str]],
        *,
        identity: Identity | None = None,
    ) -> trio.CancelScope:
        """Connect a client; cancel the scope to cut it off without a word."""
        ours, theirs = memory_stream_pair()
        scope = trio.CancelScope()

        async def serve() -> None:
            self.reasons[f"irs of {name}"] = await self.irs.handle(ours, name, identity)

        async def use() -> None:
            with scope:
                self.reasons[name] = await run_stream(theirs, name)

        self.nursery.start_soon(serve)
        self.nursery.start_soon(use)
        return scope

    def add_origin(self, name: str, *, free: int = 100) -> tuple[Origin, trio.CancelScope]:
        origin = Origin(name, free=free)
        return origin, self.join(name, origin.client.run_stream)

    def add_pop(self, name: str) -> tuple[PopClient, trio.CancelScope]:
        client = PopClient(CLIENT, PopView(name))
        self.nursery.start_soon(client.run_duties)
        return client, self.join(name, client.run_stream)


async def until(condition: Callable[[], bool], *, within_s: float = 5.0) -> float:
    """Wait until it holds; returns how long that took."""
    started = trio.current_time()
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.005)
    return trio.current_time() - started
