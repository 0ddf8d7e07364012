"""IRS and PoPs over memory streams: who is live where, also after either was started anew."""

import random

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.irs.client import IrsClientConfig, PopClient
from edged.irs.live_board import METRICS, SETTLED_S, LiveAnswer, LiveQuery
from edged.irs.service import IrsConfig
from edged.media.live import LiveReport, LiveRow
from edged.policy import live_registry
from edged.policy.live_registry import FULL_RETRY_S, KEPT_S, SILENT_S_MAX, LiveRegistry
from edged.policy.pop_view import PopView
from edged.wire.table_push import TableHolder
from tests.irs.network import Network, until
from tests.policy.test_live_teller import row, rows

ALL = LiveQuery()


def add_pop(
    network: Network, name: str, live: dict[str, LiveRow]
) -> tuple[PopClient, trio.CancelScope]:
    config = IrsClientConfig(addresses=("127.0.0.1:1",))
    client = PopClient(config, PopView(name), live=lambda: live, rng=random.Random(1))  # noqa: S311
    network.nursery.start_soon(client.run_duties)
    return client, network.join(name, client.run_stream)


def ask(network: Network, query: LiveQuery = ALL) -> LiveAnswer:
    return network.irs.live.answer(query)


async def test_irs_knows_who_is_live_where(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(warmup_s=0.0))
        here, there = rows(2), {"c1": row("c1", 9), "x": row("x", origin="ams1")}
        _, scope = add_pop(network, "p", here)
        add_pop(network, "q", there)
        await until(lambda: ask(network).matching == 4)
        answer = ask(network)
        assert (answer.channels, answer.unlisted, answer.silent) == (3, {}, [])
        assert answer.conflicts == [], "it may be a takeover"
        await trio.sleep(SETTLED_S + 0.1)
        (conflict,) = ask(network).conflicts
        assert (conflict.channel, conflict.pops, conflict.newest) == ("c1", ["p/0", "q/0"], "q/0")
        values = {each.name: each.value for each in network.irs.live.read_metrics()}
        assert values == {
            "edged_irs_live_channels": 3,
            "edged_irs_live_conflicts": 1,
            "edged_irs_live_pops_partial": 0,
            "edged_irs_live_asks_total": 2,
        }
        assert set(values) == {spec.name for spec in METRICS}
        assert [s.pop for s in ask(network, LiveQuery(channel="c1")).streams] == ["q/0", "p/0"]
        at_p = LiveQuery(channel="c1", pop="p")
        assert [s.pop for s in ask(network, at_p).streams] == ["p/0"], "of both that have it"
        assert ask(network, LiveQuery(channel="c1", origin="nowhere")).matching == 0
        assert ask(network, LiveQuery(channel="nobody")).streams == []
        one = ask(network, LiveQuery(origin="ams1", limit=1))
        assert ([seen.channel for seen in one.streams], one.matching) == (["x"], 1)
        del here["c1"]
        here["c0"] = row("c0", origin="ams1")
        await trio.sleep(1.5)
        assert ask(network).conflicts == []
        assert [s.origin for s in ask(network, LiveQuery(channel="c0")).streams] == ["ams1"]
        scope.cancel()
        await trio.sleep(1)
        assert [s.unheard_s > 0 for s in ask(network, LiveQuery(pop="p")).streams] == [True]
        await trio.sleep(KEPT_S)
        assert ask(network, LiveQuery(pop="p")).streams == []
        assert ask(network).channels == 2
        nursery.cancel_scope.cancel()


async def test_an_irs_that_was_started_anew_knows_it_again(autojump_clock: MockClock) -> None:
    live = rows(1234)
    async with trio.open_nursery() as nursery:
        first = Network(nursery, IrsConfig(warmup_s=0.0))
        client, _ = add_pop(first, "p", live)
        await until(lambda: ask(first).channels == 1234)
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        again = Network(nursery, IrsConfig(warmup_s=0.0))
        nursery.start_soon(client.run_duties)
        again.join("p", client.run_stream)
        took_s = await until(lambda: ask(again).channels == 1234)
        assert took_s < 0.2
        assert again.irs.live.registry.rows("p/0") == live
        nursery.cancel_scope.cancel()


async def test_a_pop_that_is_too_old_to_tell_is_named(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hello = TableHolder.hello
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(warmup_s=0.0))
        _, scope = add_pop(network, "p", rows(3))
        await until(lambda: ask(network).channels == 3)
        scope.cancel()
        await trio.sleep(0.1)
        monkeypatch.setattr(
            TableHolder,
            "hello",
            lambda *them: msgspec.structs.replace(hello(*them), tells_live=False),
        )
        client, _ = add_pop(network, "p", rows(3))
        await until(lambda: bool(client.sessions) and ask(network).silent == ["p/0"])
        await trio.sleep(5)
        assert ask(network).channels == 0, "what another version told is forgotten"
        assert network.irs.live.registry.asks == 1
        assert client.sessions, "it was not closed on"
        nursery.cancel_scope.cancel()


async def test_one_that_counts_wrongly_is_asked_again_and_too_many_are_left_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(warmup_s=0.0))
        client, _ = add_pop(network, "p", rows(3))
        await until(lambda: ask(network).channels == 3)
        await trio.sleep(2)
        with capture_logs() as logs:
            client._send_live("p", LiveReport(ask=1, number=2, count=99))
            await until(lambda: network.irs.live.registry.asks == 2)
            await until(lambda: network.irs.live.registry.whole)
        assert [line["pop"] for line in logs if "asked again" in str(line["event"])] == ["p/0"]
        assert ask(network).channels == 3
        monkeypatch.setattr(live_registry, "CHANNELS_MAX", 2)
        client._send_live("p", LiveReport(ask=2, number=2, changed=(row("x"),), count=4))
        await until(lambda: bool(network.irs.live.registry.unlisted()))
        assert client.sessions, "tables come by it"
        nursery.cancel_scope.cancel()


async def test_a_pop_for_which_there_is_no_room_is_said_once_and_so_is_its_end(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(warmup_s=0.0))
        network.irs.live.registry = LiveRegistry(bytes_max=3000)
        here = rows(9)
        with capture_logs() as logs:
            add_pop(network, "p", here)
            await trio.sleep(3 * FULL_RETRY_S)
            assert ask(network).channels == 0
            assert list(ask(network).unlisted) == ["p/0"]
            for channel in list(here)[3:]:
                del here[channel]
            await until(lambda: ask(network).channels == 3, within_s=2 * FULL_RETRY_S)
            await trio.sleep(SILENT_S_MAX)
        said = [
            (line["event"], line["pop"], line.get("reason"))
            for line in logs
            if "what is live" in line["event"]
        ]
        assert said == [
            (
                "no room for what is live at a pop",
                "p/0",
                "more than 0 MiB with those of all pops",
            ),
            ("there is room again for what is live at a pop", "p/0", None),
        ]
        nursery.cancel_scope.cancel()
