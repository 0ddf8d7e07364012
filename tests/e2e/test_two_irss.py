"""Two IRS processes: the active one is killed or frozen, and the other's tables place streams."""

import signal

import msgspec
import pytest
import trio

from edged.irs.live_board import LiveAnswer
from edged.irs.live_reports import LOOK_S
from edged.irs.seat import SeatSeen
from edged.media.epochs import EPOCH_LEASE_S
from tests.conftest import require
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.network import Edged, run_edged
from tests.e2e.pair import Pair, open_pair

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

IRSS = ("irs", "irs2")
BUSY_S = 2.0  # Of a machine that does much else.


async def ask(pair: Pair, irs: str) -> SeatSeen:
    """What `edged irs status` says at one of them."""
    out, _ = await run_edged(
        pair.folder, "irs", "status", "--json", "-c", str(pair.folder / f"{irs}.toml")
    )
    (seen,) = msgspec.json.decode(out, type=list[SeatSeen])
    return seen


async def wait_active(irs: Edged, *, count: int) -> int:
    """Its epoch, when it is the active one."""
    epoch = (await irs.wait_log("irs is active", count=count))["epoch"]
    assert isinstance(epoch, int)
    return epoch


async def test_the_standby_takes_over_and_what_was_drained_stays_so() -> None:
    require("ffmpeg")
    clip = make_clip(seconds=13)
    keys = "push_interval_s = 0.2\n"
    async with (
        open_pair(channels=("one", "two"), irss=IRSS, irs_keys=keys, doomed=IRSS) as pair,
        trio.open_nursery() as nursery,
    ):
        seen = await ask(pair, "irs")
        first, second = IRSS if seen.leads else reversed(IRSS)
        before = pair.pop.log("epoch granted")[-1]["epoch"]
        nursery.start_soon(publish_ffmpeg, clip, pair.publish_url("one"))
        home = await pair.home()
        path = str(pair.folder / f"{first}.toml")
        await run_edged(pair.folder, "drain", "origin", home, "--no-wait", "-c", path)
        _, refused = await run_edged(
            pair.folder,
            *("drain", "origin", home, "-c", str(pair.folder / f"{second}.toml")),
            code=1,
        )
        assert f"the active one is 127.0.0.1:{pair.ports[first]}" in refused
        await pair.pop.wait_log("stream moved")
        count = 1 + len(pair.irss[second].log("irs is active"))  # At the start both may have been.
        killed_at = trio.current_time()
        pair.irss[first].process.send_signal(signal.SIGKILL)
        epoch = await wait_active(pair.irss[second], count=count)
        assert trio.current_time() - killed_at < EPOCH_LEASE_S + 1.0 + BUSY_S
        assert isinstance(before, int)
        assert epoch > before
        granted = pair.pop.log("epoch granted")[-1]
        assert granted["epoch"] == epoch
        nursery.start_soon(publish_ffmpeg, clip, pair.publish_url("two"))
        await pair.pop.wait_log("stream placed", count=2)
        assert pair.homes()["two"] != home, "it is drained"
        await trio.sleep(LOOK_S)
        path = str(pair.folder / f"{second}.toml")
        out, _ = await run_edged(pair.folder, "live", "--json", "-c", path)
        (live,) = msgspec.json.decode(out, type=list[LiveAnswer])
        assert {(seen.channel, seen.pop, seen.origin, seen.protocol) for seen in live.streams} == {
            (channel, "ams1/0", pair.homes()["two"], "rtmp") for channel in ("one", "two")
        }
        left, _ = await run_edged(
            pair.folder, *("drain", "origin", "-c", str(pair.folder / f"{second}.toml"))
        )
        assert home in left
        assert pair.pop.log("drain of origin undone") == []
        assert len(pair.pop.log("stream moved")) == 1
        nursery.cancel_scope.cancel()


async def test_one_that_is_stopped_or_told_to_stand_by_is_followed_in_a_fraction_of_a_second() -> (
    None
):
    async with open_pair(irss=IRSS, irs_keys="push_interval_s = 0.2\n", doomed=IRSS) as pair:
        seen = {irs: await ask(pair, irs) for irs in IRSS}
        (first,) = [irs for irs in IRSS if seen[irs].leads]
        (second,) = [irs for irs in IRSS if irs != first]
        other = pair.irss[second]
        count = 1 + len(other.log("irs is active"))
        path = str(pair.folder / f"{first}.toml")
        out, _ = await run_edged(pair.folder, "irs", "standby", "--json", "-c", path)
        assert msgspec.json.decode(out, type=SeatSeen).active_at.endswith(str(pair.ports[second]))
        await wait_active(other, count=count)

        count = 1 + len(pair.irss[first].log("irs is active"))
        pushed = len(pair.pop.log("epoch granted"))
        stopped_at = trio.current_time()
        other.process.send_signal(signal.SIGTERM)
        epoch = await wait_active(pair.irss[first], count=count)
        took_s = trio.current_time() - stopped_at
        with trio.fail_after(BUSY_S):
            assert await other.process.wait() == 0
        assert took_s < 1.0, "of a lease of 3 s"
        (given,) = other.log("epochs given back")
        assert (given["pops"], given.get("unanswered")) == (1, None)
        await pair.pop.wait_log("epoch granted", count=pushed + 1)
        assert pair.pop.log("epoch granted")[-1]["epoch"] == epoch
        assert pair.pop.log("pushed table refused") == []
        print(f"SIGTERM -> the other is active: {1000 * took_s:.0f} ms")


@pytest.mark.slow
async def test_one_that_was_frozen_stands_by_when_it_is_back() -> None:
    async with open_pair(irss=IRSS, irs_keys="push_interval_s = 0.2\n") as pair:
        seen = {irs: await ask(pair, irs) for irs in IRSS}
        (first,) = [irs for irs in IRSS if seen[irs].leads]
        (second,) = [irs for irs in IRSS if irs != first]
        frozen = pair.irss[first]
        count = 1 + len(pair.irss[second].log("irs is active"))
        frozen.process.send_signal(signal.SIGSTOP)
        epoch = await wait_active(pair.irss[second], count=count)
        frozen.process.send_signal(signal.SIGCONT)
        await frozen.wait_log("irs stands by")
        await trio.sleep(2.0)
        seen = {irs: await ask(pair, irs) for irs in IRSS}
        assert [seen[irs].leads for irs in (first, second)] == [False, True]
        assert seen[second].epoch == epoch
        assert pair.pop.log("pushed table refused") == []
