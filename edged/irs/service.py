"""IRS: hears origins and PoPs, plans, and pushes each PoP its table.

One process; everything but the configuration is soft state. PoPs go on without it.
"""

import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Annotated

import structlog
import trio
from msgspec import Meta

from edged.errors import EdgedError, RemoteProtocolError
from edged.irs.client import IrsClientConfig
from edged.irs.collectors import Collectors, IrsStatus, OriginStatus, check_reachable
from edged.irs.history import HistoryConfig
from edged.irs.journal import JournalConfig
from edged.irs.links import BackboneConfig, BackboneLinks
from edged.irs.live_board import LiveBoard
from edged.irs.migrating import Migrating
from edged.irs.moving import Moving
from edged.irs.peer import MADE_ROOM, Peer
from edged.irs.places import Places
from edged.irs.planner import Planner, Rows
from edged.irs.pops import PopsTeller
from edged.irs.reach import ReachBoard
from edged.irs.seat import Seat
from edged.irs.session import HANDSHAKE_S_MAX, JITTER_MAX, drain_readable, shake_hands
from edged.irs.shedding import Shedding
from edged.irs.sources import FailureSources
from edged.irs.watch import NetworkWatch
from edged.media.epochs import check_plausible, is_plausible
from edged.media.routing import ORIGINS_MAX, RULES_MAX, RULES_PROTO, OriginState, RoutingTable
from edged.policy.capacitor import HEARTBEAT_INTERVAL_S, StateChanged
from edged.policy.moves import UnitMoves
from edged.policy.planner import PlanPolicy
from edged.policy.pushed_tables import Push, Pushed, Variant
from edged.policy.reach_config import ReachConfig
from edged.policy.rule_examples import PushedRules, RuleEntry
from edged.runtime.dscp import CS6, mark
from edged.runtime.listeners import open_listener, parse_address, peer_name
from edged.runtime.metrics import MetricSpec, Sample
from edged.runtime.supervision import Supervisor
from edged.runtime.tls import Identity, TlsFiles, check_plain
from edged.wire.table import OriginHello, PopHello

SESSIONS_MAX = 1024  # PoP shards, origins and as many that are just being replaced.

log = structlog.get_logger("edged.irs")


class IrsConfig(BackboneConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[irs]`: the routing service."""

    listen: str = "127.0.0.1:1940"
    push_interval_s: Annotated[float, Meta(ge=0.05, le=10)] = 1.0  # Leases are renewed so often.
    lease_ttl_s: Annotated[float, Meta(ge=1, le=600)] = 10.0  # Then PoPs decide by price.
    table_ttl_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0  # Then PoPs believe no masks of ours.
    reserve_fraction: Annotated[float, Meta(ge=0, le=0.5)] = 0.002  # For partners at most.
    policy: PlanPolicy = "leases"  # "proportional": by arrivals alone, without the solver.
    # After a start, before tables are replaced: origins need so long to be back. 0: do not wait.
    warmup_s: Annotated[float, Meta(ge=0, le=60)] = 5.0
    # Live streams that go to another origin, of all PoPs together: a second's worth of budget.
    moves_per_s: Annotated[float, Meta(gt=0, le=1000)] = 100.0
    rules: Annotated[tuple[RuleEntry, ...], Meta(max_length=RULES_MAX)] = ()
    journal: JournalConfig | None = None
    history: HistoryConfig | None = None
    reach: ReachConfig | None = None
    # Where drains, the last epoch and what operators did are kept; "" = nowhere.
    state_file: str = ""
    tls: TlsFiles | None = None  # This IRS's identity; needed unless all peers are on loopback.

    def __post_init__(self) -> None:
        """Raise ValueError where keys contradict each other."""
        for key, ttl_s, what in (
            ("lease_ttl_s", self.lease_ttl_s, "leases"),
            ("table_ttl_s", self.table_ttl_s, "masks"),
        ):
            if ttl_s < 2 * self.push_interval_s:
                raise ValueError(
                    f"{key} {ttl_s:g} must be at least twice push_interval_s"
                    f" {self.push_interval_s:g}, or {what} expire between pushes"
                )


def find_problems(config: IrsConfig, client: IrsClientConfig) -> list[str]:
    """Say where `[irs]` contradicts the `[irs_client]` of its network; empty when it does not."""
    if 0 < config.warmup_s < client.back_s_max:
        return [
            f"irs.warmup_s: {config.warmup_s:g} is less than the {client.back_s_max:g} s in which"
            f" origins are back (irs_client.connect_timeout_s {client.connect_timeout_s:g} +"
            f" {JITTER_MAX:g} x irs_client.reconnect_s_max {client.reconnect_s_max:g}):"
            " PoPs would get tables without them"
        ]
    return []


METRICS = (
    MetricSpec(name="edged_irs_sessions", help="Sessions now open", labels=("role",)),
    MetricSpec(name="edged_irs_origins", help="Origins by state", labels=("state",)),
    MetricSpec(name="edged_irs_pushes_total", help="Tables pushed", labels=("kind",)),
    MetricSpec(name="edged_irs_nacks_total", help="Pushed tables that a PoP did not accept"),
    MetricSpec(name="edged_irs_push_delay_seconds", help="From the last push to its ack"),
    MetricSpec(name="edged_irs_made_room_total", help="Silent callers ended for others"),
)


class IrsService:
    """The routing service; `run` listens, `handle` serves one stream (tests use memory streams)."""

    pushed: Pushed | None  # By the newest plan.

    def __init__(
        self,
        config: IrsConfig,
        *,
        entropy: Callable[[int], bytes],
        now_unix: Callable[[], float],
        tls: ssl.SSLContext | None = None,
        sessions_max: int = SESSIONS_MAX,
        origins_max: int = ORIGINS_MAX,
        supervisor: Supervisor | None = None,
        marks: bool = True,
    ) -> None:
        """`supervisor` begins the listener, the planner and the watch anew, each by itself."""
        self.config, self._rules = config, PushedRules(config.rules)
        self.entropy, self.now_unix = entropy, now_unix
        self.collectors = Collectors()
        self.tables: dict[str, RoutingTable] = {}  # Last acked, by PoP shard.
        self.links = BackboneLinks(self.collectors, config)
        self.planner = Planner(
            self.collectors,
            self._publish,
            push_interval_s=config.push_interval_s,
            lease_ttl_s=config.lease_ttl_s,
            reserve_fraction=config.reserve_fraction,
            policy=config.policy,
            links=self.links.limits,
            coming=self._coming,
        )
        self.links.on_changed = self.planner.hurry
        self._tls, self._marks, self._supervisor = tls, marks, supervisor or Supervisor("irs")
        self.sources = FailureSources(self._supervisor, now_unix, self.links.restrict)
        self._places, self._origins_max = Places(sessions_max), origins_max
        self._sessions: set[Peer] = set()
        self._pops: dict[str, Peer] = {}
        self._origins: dict[str, Peer] = {}
        self._pushed = Counter[str]()  # By sessions that have ended.
        self.nacks, self.version, self.push_delay_s, self._warm_at = 0, 0, 0.0, 0.0
        self.pushed, self.live = None, LiveBoard(self._pops)
        self.moving = Moving(
            self._pops,
            self.collectors.units,
            self.collectors.slots_used,
            now=trio.current_time,
            now_unix=now_unix,
            changed=self.planner.hurry,
            moves_per_s=config.moves_per_s,
        )
        self.collectors.state_of = self.moving.state_of
        self.shedding, self.migrating = self._make_migrating()
        self.seat = Seat(
            self._pops,
            self.moving,
            config.state_file,
            entropy=entropy,
            now_unix=now_unix,
            granted=self._granted,
            changed=self.planner.hurry,
            warmup_s=config.warmup_s,
        )
        self.reach, self.watch = self._make_reach(), NetworkWatch(self, now_unix, entropy(4).hex())
        self.shedding.on_ordered, self.shedding.on_opened = self.watch.closed, self.watch.opened

    def _make_migrating(self) -> tuple[Shedding, Migrating]:
        config, shedding = self.config, Shedding(self._pops, lambda: self.epoch, trio.current_time)
        shedding.enabled = config.shedding
        return shedding, Migrating(
            self.collectors,
            self._request_moves,
            moves_per_s=config.moves_per_s,
            reserve_fraction=config.reserve_fraction,
            policy=config.policy,
            warmup_s=config.warmup_s,
            links=self.links.limits,
            may=lambda: self.seat.moves,
            shedding=shedding,
        )

    def _make_reach(self) -> ReachBoard:
        return ReachBoard(
            self._pops,
            self.config.reach,
            listeners=self.seat.listeners,
            may=lambda: self.seat.moves,
            epoch=lambda: self.epoch,
            origin_of=self.live.registry.origin_of,
            origin_ms=self.collectors.origin_ms,
            backbone=lambda: (self.links.places, self.links.well.map),
        )

    @property
    def epoch(self) -> int:
        """Of the tables that are pushed."""
        return self.seat.epoch

    def reconfigure(self, config: IrsConfig) -> None:
        """Plan by other rules and times from now on: every PoP gets a new table at once."""
        self.config, self._rules = config, PushedRules(config.rules)
        self.planner.push_interval_s = config.push_interval_s
        self.planner.lease_ttl_s = config.lease_ttl_s
        self.planner.policy = self.migrating.policy = config.policy
        self.planner.reserve_fraction = self.migrating.reserve_fraction = config.reserve_fraction
        self.migrating.moves_per_s = self.moving.moves_per_s = config.moves_per_s
        self.migrating.warmup_s, self.shedding.enabled = config.warmup_s, config.shedding
        self.links.configure(config)
        self.reach.reconfigure(config.reach)
        self._offer_anew()

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; starts with the bound address ("127.0.0.1:1940")."""
        host, _ = parse_address(self.config.listen)
        if self._tls is None:
            check_plain(host, "irs listener")
        self.seat.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run_planning)
            bound: str = await self._supervisor.start(nursery, "irs listener", self._listen)
            log.info("irs listens", listen=bound, epoch=self.epoch, rules=len(self.config.rules))
            task_status.started(bound)

    async def run_planning(self) -> None:
        """Plan, and watch for silent origins, until cancelled. Part of `run`."""
        self.seat.start()
        self._warm_at = trio.current_time() + self.config.warmup_s
        async with trio.open_nursery() as nursery:
            self._supervisor.start_soon(nursery, "irs planner", self.planner.run)
            self._supervisor.start_soon(nursery, "irs watch", self._watch_origins)
            self._supervisor.start_soon(nursery, "irs links", self.links.run)
            self._supervisor.start_soon(nursery, "irs migrating", self.migrating.run)
            self._supervisor.start_soon(nursery, "irs sources", self.sources.run)
            self._supervisor.start_soon(nursery, "irs seat", self.seat.run)
            self._supervisor.start_soon(nursery, "irs live", self.live.run)
            self._supervisor.start_soon(nursery, "irs reach", self.reach.run)
            self._supervisor.start_soon(nursery, "irs state", self.seat.keeper.run)
            self._supervisor.start_soon(nursery, "irs network", self.watch.run)

    async def _listen(self, *, task_status: trio.TaskStatus[str]) -> None:
        sock = open_listener(self.config.listen)
        if self._marks:  # What it accepts is marked from the first packet on.
            mark(sock, CS6)
        bound = peer_name(sock.getsockname())
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._accept, [listener])
            task_status.started(bound)

    async def handle(self, stream: trio.abc.Stream, peer: str, identity: Identity | None) -> str:
        """Serve one session until it ends; `identity` is None on plain loopback. Returns why."""
        place = self._places.take()
        if place is None:
            await trio.aclose_forcefully(stream)
            return self._full
        with self._places.held(place):
            return await self._serve(place, stream, peer, identity)
        return MADE_ROOM  # type: ignore[unreachable] # `held` ends a scope.

    async def _serve(
        self,
        place: trio.CancelScope,
        stream: trio.abc.Stream,
        peer: str,
        identity: Identity | None,
    ) -> str:
        session = Peer(self, stream, peer, lambda: self._places.know(place))
        session.identity = identity
        self._sessions.add(session)
        reason = "cancelled"
        try:
            reason = await session.driver.run()
        finally:
            self._left(session, MADE_ROOM if place.cancel_called else reason)
        return reason

    def pop_joined(self, session: Peer, hello: PopHello) -> None:
        """Let a PoP shard in; a newer session of the same shard replaces the older."""
        key = hello.key
        check_plausible(hello.epoch, self.now_unix(), key)
        session.check_alone(self._pops.get(key), key, hello.by)
        self.collectors.pop_joined(key)
        session.key = key
        session.has_table = hello.epoch > 0
        session.variant = Variant(min(hello.rules_proto, RULES_PROTO), hello.wants_kept)
        session.teller = PopsTeller() if hello.wants_pops else None
        if (older := self._pops.get(key)) is not None:
            older.driver.end("replaced by a newer session")
        self._pops[key] = session
        log.info("pop joined", pop=key, peer=session.peer, epoch=hello.epoch, version=hello.version)
        if self._rules.known_by(hello.rules_proto) != self._rules.known_by(RULES_PROTO):
            log.warning("pop is too old for some keys of rules, and does without", pop=key)
        session.link.start_pushing(self.tables.get(key))
        self.seat.joined(key, session.link)
        self.live.joined(key, session.link)
        self.reach.begun(key)
        if not hello.grants_epochs:  # Else it says which epoch it wants.
            self.outbid(hello.epoch, hello.version)
        self.planner.hurry()

    def origin_joined(self, session: Peer, hello: OriginHello) -> None:
        """Let an origin in; a newer session of the same origin replaces the older."""
        name = hello.origin
        check_reachable(hello)
        session.check_alone(self._origins.get(name), name, hello.by)
        if name not in self._origins and len(self._origins) >= self._origins_max:
            raise RemoteProtocolError(f"origin {name!r} is one more than {self._origins_max}")
        session.origin = name
        if (older := self._origins.get(name)) is not None:
            older.driver.end("replaced by a newer session")
        self._origins[name] = session
        self.collectors.origin_joined(hello)
        log.info("origin joined", origin=name, peer=session.peer, address=hello.address)

    def note(self, changes: list[StateChanged]) -> None:
        """Log what changed in origins, and plan anew at once."""
        for change in changes:
            log.info(
                "origin is " + change.after,
                origin=change.origin,
                before=change.before,
                reason=change.reason,
            )
        self.watch.origins_changed(changes)
        if changes:
            self.planner.hurry()

    def outbid(self, epoch: int, version: int) -> None:
        """Raise our epoch when a PoP has a newer table than ours: newest wins, and we are it."""
        if (epoch, version) > (self.epoch, self.version) and is_plausible(epoch, self.now_unix()):
            log.warning("epoch raised", before=self.epoch, after=epoch + 1)
            self.seat.raise_epoch(epoch + 1)
            self.planner.hurry()

    def _request_moves(self, moves: Sequence[UnitMoves], within_s: float) -> None:
        self.watch.moves_wanted(self.moving.request_moves(moves, within_s), moves)
        self.planner.hurry()  # What they are to have is in leases now.

    def _coming(self) -> dict[str, int]:
        return self.migrating.coming()

    def _granted(self, pop: str) -> None:
        """A PoP listens to us from now on: it hears of drains before its first table."""
        self.moving.joined(pop)
        self._pops[pop].begin_epoch()
        self.reach.begun(pop)
        self.planner.hurry()

    def status(self) -> IrsStatus:
        """What IRS sees now."""
        capacitor = self.collectors.capacitor
        origins = []
        for name in capacitor.origins:
            state, report = self.collectors.state(name), capacitor.report(name)
            if state is not None and report is not None:
                origins.append(
                    OriginStatus(
                        origin=name,
                        state=state,
                        report=report,
                        connected=name in self._origins,
                        address=self.collectors.address(name),
                    )
                )
        return IrsStatus(
            epoch=self.epoch,
            version=self.version,
            origins=origins,
            pops=self.collectors.pops(),
            acked={key: table.stamp for key, table in self.tables.items()},
        )

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        yield Sample("edged_irs_sessions", len(self._pops), {"role": "pop"})
        yield Sample("edged_irs_sessions", len(self._origins), {"role": "origin"})
        states = [self.collectors.state(name) for name in self.collectors.capacitor.origins]
        for state in OriginState:
            yield Sample("edged_irs_origins", states.count(state), {"state": state.value})
        pushed = sum((each.pushes() for each in self._sessions), self._pushed)
        for kind in ("snapshot", "delta"):
            yield Sample("edged_irs_pushes_total", pushed[kind], {"kind": kind})
        yield Sample("edged_irs_nacks_total", self.nacks)
        yield Sample("edged_irs_push_delay_seconds", self.push_delay_s)
        yield Sample("edged_irs_made_room_total", self._places.given_up)

    async def _accept(self, stream: trio.SocketStream) -> None:
        peer = "unknown"
        try:
            peer = peer_name(stream.socket.getpeername())
            if self._tls is None:
                await self.handle(stream, peer, None)
            elif (place := self._places.take()) is None:
                log.warning("irs session refused", peer=peer, reason=self._full)
            else:
                with self._places.held(place):
                    with trio.fail_after(HANDSHAKE_S_MAX):
                        secure, identity = await shake_hands(stream, self._tls, server_side=True)
                    await self._serve(place, secure, peer, identity)
        except (EdgedError, OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            log.warning("irs session refused", peer=peer, reason=str(error.__cause__ or error))
        except Exception:  # A bug that this peer meets ends this session only.
            log.exception("irs session failed", peer=peer)

    @property
    def _full(self) -> str:
        return f"one more than {self._places.most} sessions"

    def _left(self, session: Peer, reason: str) -> None:
        self._sessions.discard(session)
        self._pushed += session.pushes()
        if session.key and self._pops.get(session.key) is session:
            del self._pops[session.key]
            self.collectors.pop_left(session.key, trio.current_time())
            self.seat.left(session.key)
            self.live.left(session.key)
            self.reach.left(session.key)
            self._forget_tables()
        if session.origin and self._origins.get(session.origin) is session:
            del self._origins[session.origin]
        log.info(
            "irs session ended",
            who=session.key or session.origin or "no hello yet",
            peer=session.peer,
            reason=reason,
            lasted_s=round(trio.current_time() - session.opened_at, 1),
        )

    def _offer_anew(self) -> None:
        for session in self._pops.values():
            session.offered = None
        self.planner.hurry()

    def _forget_tables(self) -> None:
        """Keep the tables of PoPs that are planned for; the others begin with a snapshot."""
        known = {pop.pop for pop in self.collectors.pops()}
        for key in self.tables.keys() - known:
            del self.tables[key]

    def _publish(self, rows: Rows, renew: bool) -> None:
        now = trio.current_time()
        self.version += 1
        listeners = self.seat.listeners()
        push = Push(
            epoch=self.epoch,
            version=self.version,
            issued=self.now_unix(),
            ttl_s=self.config.table_ttl_s,
            lease_ttl_s=self.config.lease_ttl_s,
        )
        variants: dict[str, Variant] = {}
        tables: dict[str, RoutingTable] = {}
        for key, session in self._pops.items():
            planned = rows.get(key)
            if planned is None or key not in listeners:
                continue
            offered = (self.epoch, planned)
            if not renew and offered == session.offered:
                continue
            if session.has_table and (now < self._warm_at or not planned.rows):
                continue  # It routes by what it has until we have heard the origins.
            session.offered = offered
            variants[key] = variant = session.variant
            rules = self._rules.known_by(variant.rules_proto)
            tables[key] = table = push.make_table(planned, rules, variant)
            session.link.offer(table, now)
            session.driver.wake()
        rules = self._rules.known_by(RULES_PROTO)
        self.pushed = Pushed(push=push, rules=rules, variants=variants, tables=tables)
        if renew:
            self._tell_pops(listeners, now)

    def _tell_pops(self, listeners: Set[str], now: float) -> None:
        offers = self.collectors.offers()
        for key, session in self._pops.items():
            if session.teller is not None and key in listeners:
                session.link.tell_pops(session.teller.tell(offers), now)
                session.driver.wake()

    async def _watch_origins(self) -> None:
        capacitor = self.collectors.capacitor
        while True:
            now = trio.current_time()
            await trio.sleep_until(min(capacitor.next_timeout(), now + HEARTBEAT_INTERVAL_S))
            if trio.current_time() < capacitor.next_timeout():
                continue
            await drain_readable()
            now = trio.current_time()
            if now >= capacitor.next_timeout():
                self.note(capacitor.handle_timeout(now))
