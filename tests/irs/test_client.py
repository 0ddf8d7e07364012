"""The PoP's and the origin's side: booting from disk, reconnecting, and TLS identities."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from structlog.typing import EventDict
from trio.testing import MockClock, memory_stream_pair

from edged.errors import ConfigError
from edged.irs import client as client_module
from edged.irs.client import IrsClientConfig, OriginClient, PopClient
from edged.irs.service import IrsConfig, IrsService
from edged.media.epochs import EPOCH_AHEAD_S_MAX, EpochAsk, IrsMemo
from edged.media.routing import (
    OriginReport,
    OriginRow,
    OriginState,
    ReportedState,
    RouteRequest,
    RoutingTable,
)
from edged.policy.pop_view import PopView
from edged.policy.routing_table import choose_origin
from edged.runtime.tls import Identity, MutualTls
from edged.tools.cert import make_authority, make_host_certificate
from edged.wire.irs_link import TableArrived
from edged.wire.table import (
    Drain,
    Goodbye,
    Message,
    Migrate,
    Move,
    OriginHello,
    Snapshot,
    decode_file,
    encode_file,
    encode_frame,
    table_crc,
)
from edged.wire.table_push import TableHolder
from tests.irs.network import CLIENT, NOW_UNIX, Network, Origin, entropy_from, until

TABLE = RoutingTable(
    epoch=5,
    version=9,
    issued=NOW_UNIX,
    ttl_s=30.0,
    lease_ttl_s=10.0,
    rows=(OriginRow("o1", "10.0.0.1:1941", OriginState.DOWN, 7),),
)
DEAD = "127.0.0.1:9"  # Nobody listens on the discard port.
REQUEST = RouteRequest(channel="alice")


def make_pop(file: Path | str = "", address: str = DEAD) -> PopClient:
    config = IrsClientConfig(
        addresses=(address,), table_file=str(file), persist_interval_s=0.1, reconnect_s_max=0.1
    )
    return PopClient(config, PopView("lhr"), rng=random.Random(1))  # noqa: S311 - a test's jitter


def beat(pop: PopClient, origin: str) -> None:
    report = OriginReport(origin, 1, ReportedState.UP, 10, (10, 10, 10))
    pop.view.heartbeat(report, trio.current_time())


@pytest.mark.e2e
async def test_a_pop_boots_from_its_last_good_table_with_irs_dead(tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_bytes(encode_file(TABLE))
    pop = make_pop(file)
    async with trio.open_nursery() as nursery:
        await nursery.start(pop.run)
        assert pop.view.table == TABLE
        pop.view.set_link("o1", up=True, now=trio.current_time())
        beat(pop, "o1")
        decision = choose_origin(REQUEST, pop.view, trio.current_time())
        assert (decision.origin, decision.address) == ("o1", "10.0.0.1:1941")
        assert decision.rule == "price"  # Its leases have long expired.
        nursery.cancel_scope.cancel()


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encode_file(TABLE)[:-1] + b"!", "table file is corrupt: crc "),
        (encode_file(TABLE)[:-9], "table file holds "),
        (b"", "table file of 0 bytes is cut short"),
        (
            encode_file(msgspec.structs.replace(TABLE, epoch=2**63 - 1)),
            "epoch 9223372036854775807 of the table lies years ahead",
        ),
        (b"<html>not found</html>", "no table file: it begins with b'<htm'"),
        (None, "Is a directory"),
    ],
)
async def test_a_corrupt_table_on_disk_is_refused_and_does_not_stop_the_pop(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "table"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    irs = IrsService(
        IrsConfig(listen="127.0.0.1:0"), entropy=entropy_from(3), now_unix=lambda: NOW_UNIX
    )
    async with trio.open_nursery() as nursery:
        address = await nursery.start(irs.run)
        pop = make_pop(file, address)
        with capture_logs() as logs:
            await nursery.start(pop.run)
        (line,) = [line for line in logs if "refused" in line["event"]]
        assert line["event"] == "routing table on disk refused, starting without one"
        assert line["file"] == str(file)
        assert str(line["reason"]).startswith(reason)
        assert pop.view.table is None
        await until(lambda: pop.view.table is not None)
        if content is not None:  # And soon a good one is in its place.
            await until(lambda: file.read_bytes() != content)
            assert decode_file(file.read_bytes()).epoch == irs.epoch
        nursery.cancel_scope.cancel()


async def test_a_pop_that_ends_keeps_the_table_that_came_last(tmp_path: Path) -> None:
    """Not the one of up to an interval ago, which may know no origin yet."""
    pop = make_pop(tmp_path / "table")
    pop.config = msgspec.structs.replace(pop.config, persist_interval_s=600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pop.run_duties)
        for version in (9, 10):
            table = msgspec.structs.replace(TABLE, version=version)
            pop.holder = TableHolder(table)
            pop._handle(TableArrived(table))
            await until((tmp_path / "table").exists)
        nursery.cancel_scope.cancel()
    assert decode_file((tmp_path / "table").read_bytes()).version == 10


async def test_intervals_that_change_count_from_the_next_one_on(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pop = make_pop(tmp_path / "table")
    pop.config = msgspec.structs.replace(
        pop.config, persist_interval_s=1.0, telemetry_interval_s=1.0
    )
    saved: list[float] = []
    told: list[float] = []

    async def save() -> None:
        saved.append(trio.current_time())

    monkeypatch.setattr(pop, "_save", save)  # What is unsaved stays so, and is saved again.
    monkeypatch.setattr(pop, "_take_telemetry", lambda: told.append(trio.current_time()))
    monkeypatch.setattr(
        pop, "sessions", {"irs": (SimpleNamespace(send=ignore), SimpleNamespace(wake=ignore))}
    )
    monkeypatch.setattr(client_module, "Telemetry", ignore)
    pop._unsaved.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pop._persist)
        nursery.start_soon(pop._tell)
        began = trio.current_time()
        await trio.sleep(3.5)
        pop.config = msgspec.structs.replace(
            pop.config, persist_interval_s=10.0, telemetry_interval_s=2.0
        )
        await trio.sleep(18)
        nursery.cancel_scope.cancel()
    assert [round(at - began) for at in saved[:6]] == [0, 1, 2, 3, 4, 14]
    assert [round(at - began) for at in told[:6]] == [1, 2, 3, 4, 6, 8]


def ignore(*_: object) -> None:
    """Whatever it is."""


async def test_a_table_that_comes_as_a_pop_ends_is_kept(tmp_path: Path) -> None:
    pop = make_pop(tmp_path / "table")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pop.run_duties)
        await trio.testing.wait_all_tasks_blocked()
        pop.holder = TableHolder(TABLE)
        pop._handle(TableArrived(TABLE))
        nursery.cancel_scope.cancel()
    assert decode_file((tmp_path / "table").read_bytes()) == TABLE


async def test_a_disk_that_hangs_holds_no_pop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, hung = threading.Event(), list[str]()

    def hang(what: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            hung.append(what.__name__)
            going_on.wait(10)
            return what(*arguments)

        return call

    for name in ("_read_file", "_write_file"):
        monkeypatch.setattr(client_module, name, hang(getattr(client_module, name)))
    for name in ("READ_S_MAX", "END_S_MAX"):
        monkeypatch.setattr(client_module, name, 0.1)
    file = tmp_path / "table"
    pop = make_pop(file)
    with capture_logs() as logs, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(pop.run)
            pop.holder = TableHolder(TABLE)
            pop._handle(TableArrived(TABLE))
            going_on.set()  # What was read too late is of no use; then the table is saved,
            await until(lambda: hung == ["_read_file", "_write_file"])
            await until(file.exists)
            going_on.clear()
            table = msgspec.structs.replace(TABLE, version=10)
            pop.holder = TableHolder(table)
            pop._handle(TableArrived(table))
            await until(lambda: len(hung) == 3)  # and the next one is held up as the PoP ends.
            nursery.cancel_scope.cancel()
    assert "the disk has not answered in 0.1 s" in reasons_in(logs)
    assert decode_file(file.read_bytes()) == TABLE
    going_on.set()
    await until(lambda: decode_file(file.read_bytes()) == table)


@pytest.mark.e2e
async def test_tables_are_kept_and_a_file_that_cannot_be_written_is_only_said(
    tmp_path: Path,
) -> None:
    irs = IrsService(
        IrsConfig(listen="127.0.0.1:0", push_interval_s=0.05, lease_ttl_s=1.0),
        entropy=entropy_from(4),
        now_unix=lambda: NOW_UNIX,
    )
    file = tmp_path / "new" / "table"
    async with trio.open_nursery() as nursery:
        address = await nursery.start(irs.run)
        with capture_logs() as logs:
            pop = make_pop(file, address)
            await nursery.start(pop.run)
            await until(file.exists)
            first = decode_file(file.read_bytes())
            await until(lambda: decode_file(file.read_bytes()).version > first.version)
            assert [path.name for path in file.parent.iterdir()] in (
                ["table"],
                ["table", "table.new"],
            )
            blocked = make_pop("/proc/nowhere/table", address)
            blocked.shard = 1
            await nursery.start(blocked.run)
            await until(lambda: any(line["event"] == "routing table not saved" for line in logs))
        assert any(line["event"] == "no routing table on disk yet" for line in logs)
        await until(lambda: blocked.view.table is not None)
        nursery.cancel_scope.cancel()


@pytest.mark.e2e
async def test_both_sides_reconnect_when_irs_is_back() -> None:
    config = IrsConfig(listen="127.0.0.1:0", warmup_s=0.0)
    first = IrsService(config, entropy=entropy_from(5), now_unix=lambda: NOW_UNIX)
    second = IrsService(config, entropy=entropy_from(6), now_unix=lambda: NOW_UNIX + 1)
    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as nursery:
            address = await nursery.start(first.run)
            pop = make_pop("", address)
            hello = OriginHello(origin="o1", incarnation=1, address="h:1")
            origin = OriginClient(pop.config, hello, Origin("o1").report)
            clients.start_soon(pop.run)
            clients.start_soon(origin.run)
            await until(lambda: "o1" in pop.view.by_name)
            nursery.cancel_scope.cancel()
        await until(lambda: not pop.sessions and not origin.sessions)
        assert "o1" in pop.view.by_name
        second.config = msgspec.structs.replace(config, listen=address)
        await clients.start(second.run)
        await until(lambda: origin.sessions == {address} == set(pop.sessions))
        await until(
            lambda: (
                pop.holder.table is not None
                and pop.holder.table.epoch == second.epoch > first.epoch
                and "o1" in pop.view.by_name
            )
        )
        clients.cancel_scope.cancel()


@pytest.mark.e2e
async def test_over_tls_each_speaks_only_for_itself(tmp_path: Path) -> None:
    now = time.time()
    make_authority(tmp_path, "test", now=now)
    tls = {
        name: MutualTls(make_host_certificate(tmp_path, Identity(*name.split("/")), now=now))
        for name in ("irs/main", "pop/lhr", "origin/o1", "origin/fake")
    }
    irs = IrsService(
        IrsConfig(listen="127.0.0.1:0"),
        entropy=entropy_from(7),
        now_unix=lambda: NOW_UNIX,
        tls=tls["irs/main"].server,
    )
    fake = IrsService(
        IrsConfig(listen="127.0.0.1:0"),
        entropy=entropy_from(8),
        now_unix=lambda: NOW_UNIX,
        tls=tls["origin/fake"].server,
    )
    hello = OriginHello(origin="o1", incarnation=1, address="h:1")
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            config = IrsClientConfig(addresses=(await nursery.start(irs.run),))
            wrong = IrsClientConfig(addresses=(await nursery.start(fake.run),))
            pop = PopClient(config, PopView("lhr"), tls=tls["pop/lhr"].client)
            await nursery.start(pop.run)
            report = Origin("o1").report
            for given, identity in ((config, "origin/o1"), (config, "origin/fake")):
                nursery.start_soon(OriginClient(given, hello, report, tls=tls[identity].client).run)
            nursery.start_soon(OriginClient(wrong, hello, report, tls=tls["origin/o1"].client).run)
            plain = await trio.open_tcp_stream("127.0.0.1", int(config.addresses[0].split(":")[1]))
            await plain.send_all(bytes(64))
            await until(lambda: "o1" in pop.view.by_name)
            await until(lambda: len(reasons_in(logs)) >= 4)
            await plain.aclose()
            nursery.cancel_scope.cancel()
    said = reasons_in(logs)
    why = "certificate of origin/fake may not speak for origin/o1"
    assert why in said
    assert f"irs ended the session: {why}" in said
    assert f"cannot connect to {wrong.addresses[0]}: it is origin/fake, no irs" in said
    assert any("WRONG_VERSION_NUMBER" in reason or "SSL" in reason for reason in said)
    assert len(irs.status().origins) == 1


def reasons_in(logs: list[EventDict]) -> set[str]:
    return {
        str(line["reason"]) for line in logs if line["log_level"] != "debug" and "reason" in line
    }


async def test_silent_origins_are_noticed_without_irs(autojump_clock: MockClock) -> None:
    heard: list[OriginState] = []
    pop = PopClient(
        CLIENT,
        PopView("lhr"),
        on_states=lambda changes: heard.extend(change.after for change in changes),
    )
    with trio.move_on_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pop.run_duties)
            await trio.sleep(0.3)
            beat(pop, "o1")
    assert heard == [OriginState.SUSPECT, OriginState.DOWN]


async def test_what_irs_commands_is_handed_on_and_a_goodbye_ends_the_session(
    autojump_clock: MockClock,
) -> None:
    commands: list[Migrate | Drain] = []
    pop = PopClient(CLIENT, PopView("lhr"), on_command=commands.append)
    sent: list[Migrate | Drain] = [
        Migrate(moves=(Move("alice", "o1", "o2"),), deadline=NOW_UNIX, budget_per_s=10.0),
        Drain(origin="o1", until=NOW_UNIX),
    ]
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        for message in (*sent, Goodbye("maintenance")):
            await theirs.send_all(encode_frame(message))
        with trio.fail_after(1):
            reason = await pop.run_stream(ours, "irs")
        nursery.cancel_scope.cancel()
    assert commands == sent
    assert reason == "irs ended the session: maintenance"


def ask_for(epoch: int) -> EpochAsk:
    return EpochAsk(irs="a", number=1, kind="want", epoch=epoch)


def push_under(epoch: int) -> Snapshot:
    table = msgspec.structs.replace(TABLE, epoch=epoch)
    return Snapshot(nonce=1, crc=table_crc(table), table=table)


def leave_memo_of(epoch: int) -> IrsMemo:
    return IrsMemo(epoch=epoch)


@pytest.mark.parametrize("make", [ask_for, push_under, leave_memo_of])
async def test_an_epoch_of_years_ahead_ends_the_session(
    make: Callable[[int], Message], autojump_clock: MockClock
) -> None:
    """Nobody could go above it: neither another IRS, nor this one when it is mended."""
    most = int(NOW_UNIX) + EPOCH_AHEAD_S_MAX
    for epoch, reason in (
        (most, "irs ended the session: done"),
        (most + 1, f"epoch {most + 1} of irs lies years ahead, {most} is the most"),
    ):
        config = IrsClientConfig(addresses=("irs:1940", "other:1940"))
        pop = PopClient(config, PopView("lhr"), now_unix=lambda: NOW_UNIX)
        ours, theirs = memory_stream_pair()
        for message in (make(epoch), Goodbye("done")):
            await theirs.send_all(encode_frame(message))
        with trio.fail_after(1):
            assert await pop.run_stream(ours, "irs") == reason
        assert pop.grants is not None
        answer = pop.grants.answer(EpochAsk(irs="b", number=1, kind="look", epoch=1), "b", 9.0)
        assert max(answer.epoch, *answer.stamp) == (most if epoch == most else 0)


async def test_an_origin_beats_ten_times_a_second(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        beats: list[float] = []
        origin = Origin("o1")

        def report() -> OriginReport:
            beats.append(trio.current_time())
            return origin.report()

        client = OriginClient(
            CLIENT, OriginHello(origin="o1", incarnation=1, address="h:1"), report
        )
        network.join("o1", client.run_stream)
        await trio.sleep(0.95)
        assert beats == pytest.approx([n / 10 for n in range(10)])
        nursery.cancel_scope.cancel()


async def test_plain_tcp_is_for_loopback_only() -> None:
    config = IrsClientConfig(addresses=("198.51.100.1:1940",))
    hello = OriginHello(origin="o1", incarnation=1, address="h:1")
    with pytest.raises(ConfigError, match="allowed on loopback only"):
        await PopClient(config, PopView("lhr")).run()
    with pytest.raises(ConfigError, match="allowed on loopback only"):
        await OriginClient(config, hello, Origin("o1").report).run()
    service = IrsService(
        IrsConfig(listen="0.0.0.0:0"),
        entropy=entropy_from(6),
        now_unix=lambda: NOW_UNIX,
    )
    with pytest.raises(ConfigError, match="allowed on loopback only"):
        await service.run()


def test_config_is_checked() -> None:
    with pytest.raises(msgspec.ValidationError, match="length >= 1"):
        msgspec.toml.decode("addresses = []", type=IrsClientConfig)
    with pytest.raises(msgspec.ValidationError, match="length <= 3"):
        msgspec.toml.decode('addresses = ["h:1", "h:2", "h:3", "h:4"]', type=IrsClientConfig)
    with pytest.raises(msgspec.ValidationError, match="h:2 is there more than once"):
        msgspec.toml.decode('addresses = ["h:2", "h:1", "h:2"]', type=IrsClientConfig)
    with pytest.raises(msgspec.ValidationError, match="missing required field `addresses`"):
        msgspec.toml.decode("", type=IrsClientConfig)
