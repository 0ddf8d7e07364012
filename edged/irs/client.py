"""The sides of a PoP and of an origin towards IRS.

A PoP keeps one session to each configured IRS: tables come in, telemetry goes out, and the newest
table in force is kept on disk, so that the PoP can start with IRS dead. Where there are several,
it grants one of them an epoch and does what that one says; all hear what it tells. An origin beats
ten times a second. Both reconnect for ever, with backoff and jitter, and do their work meanwhile.
"""

import errno
import os
import random
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
import trio
from msgspec import Meta, Struct

from edged.errors import RemoteProtocolError
from edged.irs.disk_thread import DiskThread
from edged.irs.gate import Gate
from edged.irs.live_reports import LiveReports
from edged.irs.session import JITTER_MAX, Driver, connect, drain_readable, keep_session
from edged.irs.twins import Twins
from edged.media.epochs import check_plausible, is_plausible
from edged.media.live import LiveAsk, LiveReport, LiveRow
from edged.media.reach import Audience, Reach
from edged.media.routing import IngestOffer, OriginReport, PopTelemetry, RoutingTable
from edged.policy.capacitor import HEARTBEAT_INTERVAL_S, StateChanged
from edged.policy.epoch_grants import EpochGrants
from edged.policy.pop_view import PopView
from edged.runtime.listeners import parse_address
from edged.runtime.tls import check_plain
from edged.wire.irs_link import (
    CommandRefused,
    GrantBegan,
    GrantReleased,
    PeerLink,
    PushRefused,
    TableArrived,
)
from edged.wire.table import (
    FILE_BYTES_MAX,
    Drain,
    Goodbye,
    Heartbeat,
    Migrate,
    News,
    OriginHello,
    Pops,
    Shed,
    ShedDone,
    Telemetry,
    decode_file,
    encode_file,
)
from edged.wire.table_push import TableHolder

ADDRESSES_MAX = 3  # Each hears all that PoPs and origins tell.
READ_S_MAX = 5.0  # Of the table on disk, at the start: a disk that hangs does not hold us longer.
END_S_MAX = 2.0  # For a table that is not saved yet, as the process ends.

log = structlog.get_logger("edged.irs.client")


class IrsClientConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[irs_client]`: where IRS is, for PoPs and origins."""

    # HOST:PORT of each: one of them is active, the others stand by.
    addresses: Annotated[tuple[str, ...], Meta(min_length=1, max_length=ADDRESSES_MAX)]
    table_file: str = ""  # Where a PoP keeps its last good table; "" = nowhere.
    telemetry_interval_s: Annotated[float, Meta(ge=0.1, le=2.0)] = 1.0  # IRS misses it after 3 s.
    persist_interval_s: Annotated[float, Meta(ge=0.1, le=600)] = 5.0  # Between writes of the file.
    connect_timeout_s: Annotated[float, Meta(gt=0, le=30)] = 3.0
    reconnect_s_max: Annotated[float, Meta(ge=0.05, le=60)] = 1.0  # A blind PoP is worth a packet.

    def __post_init__(self) -> None:
        """Raise ValueError for an address that is there twice: one IRS is one voice."""
        twice = sorted({each for each in self.addresses if self.addresses.count(each) > 1})
        if twice:
            raise ValueError(f"addresses: {', '.join(twice)} is there more than once")

    @property
    def back_s_max(self) -> float:
        """How long after IRS has come back this host may take to be there, an attempt under way."""
        return self.connect_timeout_s + JITTER_MAX * self.reconnect_s_max


class PopClient:
    """A PoP's side. It feeds `view`; `on_table` hears of every table put in force."""

    def __init__(  # noqa: PLR0913 -- callables, each with a default and named by the caller
        self,
        config: IrsClientConfig,
        view: PopView,
        *,
        shard: int = 0,
        tls: ssl.SSLContext | None = None,
        rng: random.Random | None = None,
        now_unix: Callable[[], float] = time.time,
        marks: bool = True,
        on_table: Callable[[RoutingTable], None] = lambda _: None,
        on_states: Callable[[list[StateChanged]], None] = lambda _: None,
        on_command: Callable[[Migrate | Drain], None] = lambda _: None,
        on_shed: Callable[[Shed], None] = lambda _: None,
        on_pops: Callable[[Pops], None] = lambda _: None,
        on_joined: Callable[[], None] = lambda: None,
        on_taken_over: Callable[[], None] = lambda: None,
        offer: Callable[[], IngestOffer | None] = lambda: None,
        live: Callable[[], Mapping[str, LiveRow]] = dict,
        on_reach: Callable[[Reach], None] = lambda _: None,
    ) -> None:
        """`on_states`: what silence made of origins; `on_command`: what IRS wants moved.

        `on_pops`: what IRS tells of other PoPs; `offer`: what it is to tell them of this one;
        `on_shed`: which streams it wants ended, as links are full;
        `live`: what is published here, by channel; `on_reach`: what IRS wants here, watched or not.
        `on_joined`: a session begins, or its grant where there are several IRSs, before anything
        comes of it. `on_taken_over`: it is another IRS's than before.
        """
        self.config = config
        self.view = view
        self.shard = shard
        self.holder = TableHolder()
        self.sessions: dict[str, tuple[PeerLink, Driver]] = {}  # Now up, by address.
        self.grants = EpochGrants() if len(config.addresses) > 1 else None
        self.tables_received = self.pushes_refused = 0
        self.changed_at: float | None = None  # When a session last came or went; None: never.
        self._tls, self._marks = tls, marks
        self._rng = rng or random.Random()  # noqa: S311 - spreads reconnects, keeps no secret
        self._on_table = on_table
        self._on_states = on_states
        self._on_command, self._on_shed = on_command, on_shed
        self._on_pops, self._on_reach = on_pops, on_reach
        self._reached_by: set[str] = set()  # Sessions of whom that came: they are told who watches.
        self._shed_by: set[str] = (
            set()
        )  # They hear what came of it; an older one would close on it.
        self._on_joined, self._on_taken_over = on_joined, on_taken_over
        self._granted_to = ""  # Whose run of an IRS it was last.
        self._now_unix = now_unix
        self._offer = offer
        self.live, self.twins = LiveReports(live, self._send_live), Twins()
        self._unsaved = trio.Event()
        self._disk = DiskThread()  # Two writers would spoil each other's file.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; starts when the table on disk, if any, is in force."""
        _check_addresses(self.config.addresses, self._tls)
        await self._boot()
        async with trio.open_nursery() as nursery:
            for address in self.config.addresses:
                nursery.start_soon(
                    partial(
                        keep_session,
                        address,
                        self._run_session,
                        rng=self._rng,
                        reconnect_s_max=lambda: self.config.reconnect_s_max,
                    )
                )
            nursery.start_soon(self.run_duties)
            task_status.started()

    async def run_duties(self) -> None:
        """Tell, watch and save until cancelled: what `run` does beside its sessions."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell)
            nursery.start_soon(self._watch_origins)
            nursery.start_soon(self.live.run)
            if self.config.table_file:
                nursery.start_soon(self._persist)

    def send_moved(self, news: News) -> None:
        """Tell IRS that a live stream has a new home, or why it has none; or what was shed."""
        done = isinstance(news, ShedDone)
        self._send(news, self._shed_by & self.sessions.keys() if done else self.sessions)

    def send_audience(self, audience: Audience) -> None:
        """Tell who watches what to those who plan with it."""
        self._send(audience, self._reached_by & self.sessions.keys())

    def _send_live(self, address: str, report: LiveReport) -> None:
        self._send(report, {address} & self.sessions.keys())

    def _send(self, message: News | Audience | LiveReport, addresses: Iterable[str]) -> None:
        for address in addresses:
            link, driver = self.sessions[address]
            link.send(message, trio.current_time())
            driver.wake()

    async def _run_session(self, address: str) -> str:
        await self.twins.wait(address, self.sessions)
        stream = await connect(
            address,
            self._tls,
            role="irs",
            timeout_s=self.config.connect_timeout_s,
            marks=self._marks,
        )
        self.twins.connected(address)
        return await self.run_stream(stream, address)

    async def run_stream(self, stream: trio.abc.Stream, address: str) -> str:
        """Run one session on a stream that is connected; returns why it ended."""
        hello = self.holder.hello(self.view.pop, self.shard)
        gate = None
        if self.grants is not None:
            hello = msgspec.structs.replace(hello, grants_epochs=True, by=address)
            self.grants.saw(hello.epoch)
            gate = Gate(self.grants, address, self._now_unix)
        link = PeerLink(hello, self.holder, trio.current_time(), gate)
        driver = Driver(stream, link, partial(self._handle, address=address))
        log.info("irs session begins", irs=address, epoch=hello.epoch, version=hello.version)
        session = self.sessions[address] = (link, driver)
        self._tell_all()  # It plans with it; the counts in it are for the others as well.
        self.changed_at = trio.current_time()
        if self.grants is None:
            self._on_joined()
        try:
            return await driver.run()
        finally:
            if self.sessions.get(address) is session:
                del self.sessions[address]
                self.changed_at = trio.current_time()
                self.live.ended(address)
                self._reached_by.discard(address)
                self._shed_by.discard(address)
                if self.grants is not None:
                    self.grants.session_ended(address)

    def _handle(self, event: object, address: str = "") -> None:
        match event:
            case TableArrived(table):
                self.tables_received += 1
                if self.grants is not None:
                    self.grants.saw(table.epoch)
                self.view.accept_table(table, trio.current_time())
                self._unsaved.set()
                self._on_table(table)
            case PushRefused(reason):
                self.pushes_refused += 1
                log.warning("pushed table refused", irs=address, reason=reason)
            case LiveAsk():
                self.live.asked(address, event)
            case GrantBegan() | GrantReleased():
                self._note_grant(event, address)
            case CommandRefused(message, reason):
                log.warning("irs not obeyed", irs=address, command=message, reason=reason)
            case Migrate() | Drain() | Shed() | Pops() | Reach():
                self._obey(event, address)
            case Goodbye():
                self.twins.take_goodbye(address, event)

    def _obey(self, command: Migrate | Drain | Shed | Pops | Reach, address: str) -> None:
        match command:
            case Shed():
                self._shed_by.add(address)
                self._on_shed(command)
            case Migrate() | Drain():
                log.info("irs wants streams moved", command=type(command).__name__)
                self._on_command(command)
            case Pops():
                self._on_pops(command)
            case Reach() if not is_plausible(command.epoch, self._now_unix()):
                log.warning("orders of reach not taken", irs=address, epoch=command.epoch)
            case Reach():
                self._reached_by.add(address)
                self._on_reach(command)

    def _note_grant(self, event: GrantBegan | GrantReleased, address: str) -> None:
        if isinstance(event, GrantReleased):
            self._tell_free()
            return
        log.info("epoch granted", irs=address, epoch=event.epoch)
        if self._granted_to not in ("", event.irs):
            self._on_taken_over()
        self._granted_to = event.irs
        self._on_joined()

    def _tell_free(self) -> None:
        assert self.grants is not None, "who grants nothing is given nothing back"
        now = trio.current_time()
        for address, notice in self.grants.take_notices(now):
            if (session := self.sessions.get(address)) is not None:
                link, driver = session
                link.send(notice, now)
                driver.wake()

    def _take_telemetry(self) -> PopTelemetry:
        told = self.view.take_telemetry()
        return msgspec.structs.replace(told, ingest=self._offer())

    async def _tell(self) -> None:
        while True:
            await trio.sleep(self.config.telemetry_interval_s)
            if self.sessions:  # Else the counts go on.
                self._tell_all()

    def _tell_all(self) -> None:
        told = self._take_telemetry()
        for link, driver in self.sessions.values():
            link.send(Telemetry(told), trio.current_time())
            driver.wake()

    async def _watch_origins(self) -> None:
        while True:
            now = trio.current_time()
            await trio.sleep_until(min(self.view.next_timeout(), now + HEARTBEAT_INTERVAL_S))
            if trio.current_time() < self.view.next_timeout():
                continue
            await drain_readable()
            now = trio.current_time()
            if now >= self.view.next_timeout() and (changes := self.view.handle_timeout(now)):
                self._on_states(changes)

    async def _boot(self) -> None:
        """Put the table on disk in force. One that can't be read is said, and does not stop us."""
        path = self.config.table_file
        if not path or self.holder.table is not None:
            return  # Begun anew with a table in force: the one on disk may be older.
        try:
            data = await self._read(Path(path))
            if data is None:
                log.info("no routing table on disk yet", file=path)
                return
            table = decode_file(data)
            check_plausible(table.epoch, self._now_unix(), "the table")
        except (OSError, RemoteProtocolError) as error:
            log.warning(
                "routing table on disk refused, starting without one",
                file=path,
                reason=_reason_of(error),
            )
            return
        self.holder = TableHolder(table)
        self.view.accept_table(table, trio.current_time(), from_disk=True)
        log.info(
            "routing table on disk in force",
            file=path,
            epoch=table.epoch,
            version=table.version,
            origins=len(table.rows),
        )
        self._on_table(table)

    async def _read(self, path: Path) -> bytes | None:
        with trio.move_on_after(READ_S_MAX):
            await self._disk.idle()  # A run before this one may have left it at work.
            return await self._disk.run(partial(_read_file, path))
        raise OSError(errno.ETIMEDOUT, f"the disk has not answered in {READ_S_MAX:g} s")

    async def _persist(self) -> None:
        """Save each table, at most one in an interval; the last on the way out, if it is quick."""
        try:
            while True:
                await self._unsaved.wait()
                await self._save()
                await trio.sleep(self.config.persist_interval_s)
        finally:
            with trio.move_on_after(END_S_MAX) as scope:
                scope.shield = True
                await self._disk.idle()
                if self._unsaved.is_set():
                    await self._save()

    async def _save(self) -> None:
        await self._disk.idle()
        await trio.lowlevel.checkpoint_if_cancelled()  # What is taken now is written.
        self._unsaved = trio.Event()
        table = self.holder.table
        assert table is not None, "a table has arrived"
        path = Path(self.config.table_file)
        try:
            await self._disk.run(partial(_write_file, path, encode_file(table)))
        except OSError as error:
            log.warning("routing table not saved", file=str(path), reason=_reason_of(error))


class OriginClient:
    """An origin's side: says where it is, then beats; `report` makes each heartbeat."""

    def __init__(
        self,
        config: IrsClientConfig,
        hello: OriginHello,
        report: Callable[[], OriginReport],
        *,
        tls: ssl.SSLContext | None = None,
        rng: random.Random | None = None,
        marks: bool = True,
    ) -> None:
        self.config = config
        self.sessions: set[str] = set()  # Addresses of the IRSs now connected.
        self.changed_at: float | None = None  # When a session last came or went; None: never.
        self.twins = Twins()
        self._hello = hello
        self._report = report
        self._tls, self._marks = tls, marks
        self._rng = rng or random.Random()  # noqa: S311 - spreads reconnects, keeps no secret

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; raises ConfigError, before it starts, for plain TCP off loopback."""
        _check_addresses(self.config.addresses, self._tls)
        async with trio.open_nursery() as nursery:
            task_status.started()
            for address in self.config.addresses:
                nursery.start_soon(
                    partial(
                        keep_session,
                        address,
                        self._run_session,
                        rng=self._rng,
                        reconnect_s_max=lambda: self.config.reconnect_s_max,
                    )
                )

    async def _run_session(self, address: str) -> str:
        await self.twins.wait(address, self.sessions)
        stream = await connect(
            address,
            self._tls,
            role="irs",
            timeout_s=self.config.connect_timeout_s,
            marks=self._marks,
        )
        self.twins.connected(address)
        return await self.run_stream(stream, address)

    async def run_stream(self, stream: trio.abc.Stream, address: str) -> str:
        """Run one session on a stream that is connected; returns why it ended."""
        by = address if len(self.config.addresses) > 1 else ""
        hello = msgspec.structs.replace(self._hello, by=by)
        link = PeerLink(hello, None, trio.current_time())
        driver = Driver(stream, link, partial(self._handle, address))
        log.info("irs session begins", irs=address, origin=self._hello.origin)
        self.sessions.add(address)
        self.changed_at = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat, link, driver)
                reason = await driver.run()
                nursery.cancel_scope.cancel()
        finally:
            self.sessions.discard(address)
            self.changed_at = trio.current_time()
        return reason

    def _handle(self, address: str, event: object) -> None:
        if isinstance(event, Goodbye):
            self.twins.take_goodbye(address, event)

    async def _beat(self, link: PeerLink, driver: Driver) -> None:
        beat_at = trio.current_time()
        while True:
            link.send(Heartbeat(self._report()), trio.current_time())
            driver.wake()
            # After a pause of ours one beat is enough: they tell the present, not the past.
            beat_at = max(beat_at + HEARTBEAT_INTERVAL_S, trio.current_time())
            await trio.sleep_until(beat_at)


def _check_addresses(addresses: tuple[str, ...], tls: ssl.SSLContext | None) -> None:
    for address in addresses:
        host, _ = parse_address(address)
        if tls is None:
            check_plain(host, f"irs session to {address}")


def _read_file(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None


def _write_file(path: Path, data: bytes) -> None:
    """Replace the file as a whole: whoever reads it sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # Else the rename may be lost with the power.
    finally:
        os.close(directory)


def _reason_of(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
