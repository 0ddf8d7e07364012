"""A stream's ladder in real processes: killed, hung, poisoned, too slow; the source goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from msgspec import structs
from structlog.testing import capture_logs

from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.media.stream import PriorityClass
from edged.media.track import Kind, Track
from edged.origin.transcoder import TranscoderLimits
from edged.policy import ladder_load
from edged.policy.ladder import LadderBudget, choose_ladder
from edged.policy.ladder_encoders import EncoderTrust
from tests.origin.live import DEADLINE_S, Live, driven, faulty, running
from tests.origin.sources import (
    SMALL,
    X264,
    Source,
    decode_video,
    make_rungs,
    make_source,
    plan_for,
)

pytestmark = pytest.mark.e2e
MIDDLE = "96p"


def clip() -> Source:
    """GOPs of half a second."""
    return make_source(
        *X264, "-bf", "2", "-g", "15", "-c:a", "libopus", audio="sine=440:r=48000", seconds=2
    )


def check_whole(live: Live, turns: int) -> None:
    """All of a rung's GOPs are whole, each once, and decode without a complaint."""
    made = live.made
    expected = {u.pts for u in live.source.of(Kind.VIDEO)}
    times = {pts + 2 * 90_000 * turn for pts in expected for turn in range(turns)}
    for rung in live.transcoder.plan.video:
        units = made.rung(rung.name)
        pts = [unit.pts for unit in units]
        assert pts == sorted(set(pts))
        assert set(pts) <= times
        assert len(decode_video(made.track(rung.name), units)) == len(units)
        assert not any(unit.discontinuity for unit in units), "the configuration is the same"
        assert len(live.tracks[rung.track_id]) == 1


async def test_what_is_published_is_what_an_engine_makes() -> None:
    live = Live(clip())
    with capture_logs() as logs:
        async with running(live):
            await live.feed(speed=4)
    assert [line["event"] for line in logs] == ["ladder started", "ladder ended"]
    expected = make_rungs(live.source)
    assert live.units.keys() == expected.units.keys()
    for track_id, units in expected.units.items():
        got = live.units[track_id]
        assert [(u.pts, u.random_access) for u in got] == [(u.pts, u.random_access) for u in units]
    seqs = sorted(unit.seq for units in live.units.values() for unit in units)
    assert seqs == list(range(len(seqs)))
    statistics = live.transcoder.statistics()
    assert (statistics.state, statistics.pid, statistics.restarts) == ("ended", None, 0)
    assert statistics.units_in == len(live.source.units)
    assert statistics.units_out == len(seqs)


def cpu_by_thread(pid: int | None) -> dict[str, int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks}


async def work_with(threads: int) -> list[int]:
    """CPU time of each thread of a child that is planned with so many."""
    source = make_source(*X264, "-bf", "2", "-g", "15", size="640x360", seconds=2)

    def choose(tracks: Sequence[Track]) -> LadderPlan:
        return structs.replace(plan_for(tracks), decode_threads=threads, encode_threads=threads)

    live = Live(source, choose=choose)
    async with running(live):
        await live.begun()
        await live.wait_until(lambda: live.transcoder.state == "running")
        before = cpu_by_thread(live.transcoder.statistics().pid)  # To begin is work, too.
        await live.feed(turns=2, speed=4)
        await live.wait_until(lambda: live.transcoder.output.units > 300)
        after = cpu_by_thread(live.transcoder.statistics().pid)
    check_whole(live, 2)
    assert all(gop[0] % 45_000 == live.keys[0] % 45_000 for gop in live.gops(MIDDLE))
    return sorted(used_ns - before.get(task, 0) for task, used_ns in after.items())


async def test_its_child_works_with_the_threads_that_are_planned() -> None:
    alone = await work_with(1)
    assert alone[-1] > 0.9 * sum(alone)
    shared = await work_with(2)
    assert shared[-1] < 0.75 * sum(shared)
    assert sum(used > 0.01 * sum(shared) for used in shared) >= 4


async def test_killed_it_goes_on_at_the_next_random_access() -> None:
    live = Live(clip())
    killed: list[int] = []

    def kill(unit: AccessUnit) -> AccessUnit:
        if unit.seq == 150:
            pid = live.transcoder.statistics().pid
            assert pid is not None
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
        return unit

    async with running(live):
        await live.wait_until(lambda: live.transcoder.state == "waiting")
        await live.feed(turns=3, change=kill)
    statistics = live.transcoder.statistics()
    assert statistics.restarts == 1
    assert statistics.last_reason == "killed by signal 9"
    check_whole(live, 3)
    gops = live.gops(MIDDLE)
    assert sum(len(gop) < 15 for gop in gops) <= 1, "the one that it was killed in"
    assert 10 <= len(gops) <= 12
    assert live.stream.units == 3 * len(live.source.units), "the source was never held up"
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)


async def test_what_is_long_past_when_it_is_begun_anew_is_not_made_up_for() -> None:
    live = Live(clip())
    async with running(live):
        await live.begun()
        await live.feed(speed=4)
        await live.wait_until(lambda: len(live.units) > 2 and len(live.made.rung(MIDDLE)) > 30)
        session = live.transcoder._session
        assert session is not None
        os.kill(session.child.pid, signal.SIGSTOP)
        scales = {track.track_id: track.timescale for track in live.source.tracks}
        later = [
            unit.replaced(
                pts=unit.pts + 2 * scales[unit.track_id], dts=unit.dts + 2 * scales[unit.track_id]
            )
            for unit in live.source.units
        ]
        live.source = structs.replace(live.source, units=later)
        await live.feed(turns=3, speed=float("inf"))
        await live.wait_until(lambda: session._flight)
        os.kill(session.child.pid, signal.SIGKILL)
        await live.wait_until(lambda: live.transcoder.statistics().restarts == 1)
        await live.wait_until(lambda: live.gops(MIDDLE)[-1][0] > 6 * 90_000)
    begun = [gop[0] / 90_000 for gop in live.gops(MIDDLE)]
    assert max(begun) > 7.4
    assert not [at for at in begun if 2.6 < at < 7.4], "viewers are past it"


async def test_hung_it_is_killed_and_begun_anew() -> None:
    live = Live(clip(), limits=TranscoderLimits(hang_s=1.0))

    def stop(unit: AccessUnit) -> AccessUnit:
        if unit.seq == 150:
            pid = live.transcoder.statistics().pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
        return unit

    async with running(live):
        await live.feed(turns=3, change=stop)
    statistics = live.transcoder.statistics()
    assert statistics.restarts == 1
    assert statistics.last_reason.startswith("made no progress for 1.")
    check_whole(live, 3)
    assert live.gops(MIDDLE)[-1][-1] > 5 * 90_000


async def test_a_unit_that_kills_it_twice_is_left_out_with_its_gop() -> None:
    command = faulty("if unit.payload.endswith(b'POISON'): os.abort()")
    live = Live(clip(), command=command)
    poisoned: list[int] = []

    def poison(unit: AccessUnit) -> AccessUnit:
        if not poisoned and unit.seq > 150 and unit.random_access and unit.track_id == 1:
            poisoned.append(unit.pts)
            return unit.replaced(payload=unit.payload + b"POISON")
        return unit

    async with running(live):
        await live.feed(turns=3, change=poison)
    statistics = live.transcoder.statistics()
    assert statistics.restarts == 2
    assert statistics.last_reason == "killed by signal 6"
    check_whole(live, 3)
    shown = [gop[0] for gop in live.gops(MIDDLE)]
    assert poisoned[0] not in shown
    assert poisoned[0] + 45_000 in shown or poisoned[0] + 90_000 in shown
    assert poisoned[0] - 45_000 in shown


@pytest.mark.parametrize(
    ("before", "restarts", "why"),
    [
        (
            "if frame.pts > 150_000: raise EncoderError('h264_nvenc fails: lost device')",
            1,
            "failed: h264_nvenc fails: lost device",
        ),
        ("if frame.pts > 45_000: os.abort()", 3, "failed 3 times in a row: killed by signal 6"),
    ],
    ids=["error", "crash"],
)
async def test_a_hardware_encoder_that_fails_under_way_is_followed_by_x264(
    before: str, restarts: int, why: str
) -> None:
    trust = EncoderTrust()
    budget = LadderBudget(cost_max=1e6, encoders=("h264_nvenc", "libx264"))
    config = structs.replace(SMALL, encoder="auto")

    def choose(tracks: Sequence[Track]) -> LadderPlan:
        return choose_ladder(tracks, config, PriorityClass.BASIC, trust.limit(budget))

    live = Live(
        clip(), command=driven("h264_nvenc", before), choose=choose, failed=trust.note_failure
    )
    with capture_logs() as logs:
        async with running(live):
            await live.begun()
            assert live.transcoder.plan.encoder == "h264_nvenc"
            await live.feed(turns=5)
    statistics = live.transcoder.statistics()
    assert statistics.restarts == restarts
    assert trust.missing == {"h264_nvenc": why}
    assert live.transcoder.plan.encoder == "libx264"
    (line,) = [line for line in logs if line["event"] == "ladder has another encoder"]
    assert (line["before"], line["encoder"]) == ("h264_nvenc", "libx264")
    assert why.rpartition(": ")[2] in line["reason"]
    assert live.gops(MIDDLE)[-1][-1] > 9 * 90_000, "rungs go on to the end"
    assert live.stream.units == 5 * len(live.source.units), "the source was never held up"


async def test_one_that_does_not_open_here_costs_one_restart() -> None:
    """With a real one, of hardware that only small boards have."""
    trust = EncoderTrust()
    budget = LadderBudget(cost_max=1e6, encoders=("h264_v4l2m2m", "libx264"))

    def choose(tracks: Sequence[Track]) -> LadderPlan:
        plan = choose_ladder(tracks, SMALL, PriorityClass.BASIC, budget)
        is_out = "h264_v4l2m2m" in trust.missing
        return plan if is_out else structs.replace(plan, encoder="h264_v4l2m2m")

    live = Live(clip(), choose=choose, failed=trust.note_failure)
    async with running(live):
        await live.begun()
        await live.feed(turns=2)
    assert live.transcoder.statistics().restarts == 1
    assert trust.missing["h264_v4l2m2m"].startswith("failed: h264_v4l2m2m does not open: ")
    check_whole(live, 2)
    assert live.gops(MIDDLE)


async def test_random_bytes_in_nal_units_cost_pictures_and_nothing_else() -> None:
    rng = random.Random(7)  # noqa: S311 - it decides, and keeps no secret
    live = Live(clip())

    def garble(unit: AccessUnit) -> AccessUnit:
        if unit.track_id != 1 or unit.random_access or rng.random() < 0.7:
            return unit
        payload = bytearray(unit.payload)
        for _ in range(1 + len(payload) // 20):
            payload[rng.randrange(5, len(payload))] = rng.randrange(256)
        return unit.replaced(payload=bytes(payload))

    async with running(live):
        await live.feed(turns=2, speed=2, change=garble)
    assert live.transcoder.state == "ended"
    assert live.transcoder.statistics().restarts <= 2
    keys = {unit.pts for unit in live.made.rung(MIDDLE) if unit.random_access}
    assert len(keys & {k + 180_000 * turn for k in live.keys for turn in (0, 1)}) >= 6


async def test_one_without_memory_fails_alone() -> None:
    live = Live(clip(), limits=TranscoderLimits(memory_bytes=64 * 2**20))
    async with running(live):
        await live.feed(speed=1)
        await live.wait_until(lambda: live.transcoder.statistics().restarts)
    assert live.transcoder.statistics().restarts >= 1
    assert live.transcoder.last_reason
    assert live.stream.units == len(live.source.units)


@pytest.mark.timeout(150)
async def test_too_slow_it_sheds_the_costliest_rung_and_gives_it_back_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ladder_load, "RETURN_S_MIN", 1.0)  # Ten times as long for viewers.
    command = faulty(
        "busy = engine._video is not None and len(engine._video._makers) == 3\n"
        "    time.sleep(0.06 if unit.track_id == 1 and busy and unit.seq < 600 else 0)"
    )
    for _ in range(3):
        live = Live(clip(), command=command)
        with capture_logs() as logs:
            async with running(live):
                await live.feed(turns=6)
                statistics = live.transcoder.statistics()
        told = [(line["event"], line["rung"]) for line in logs if "rung" in line]
        if live.late_s < 0.5:
            break  # Else this machine has held up the source, which was no faster than the child.
    assert told == [("rung shed", "120p"), ("rung given back", "120p")]
    assert live.wanted == [("120p", "96p", "64p"), ("96p", "64p"), ("120p", "96p", "64p")]
    assert statistics.queue_s < 1.5, "it has caught up"
    assert (statistics.shed, statistics.rungs) == ((), ("120p", "96p", "64p"))
    assert "rung 120p given back" in statistics.last_reason
    check_whole(live, 6)
    assert len(live.gops(MIDDLE)) == 24, "the others have all there is"
    starts = [gop[0] for gop in live.gops("120p")]
    assert len(starts) < 24
    assert set(starts) < {gop[0] for gop in live.gops(MIDDLE)}


async def test_the_sound_alone() -> None:
    source = make_source(
        "-c:a", "libopus", video=None, audio="sine=440:r=48000", seconds=2, suffix="mkv"
    )
    live = Live(source)

    def kill(unit: AccessUnit) -> AccessUnit:
        pid = live.transcoder.statistics().pid
        if unit.seq == 60 and pid is not None:
            os.kill(pid, signal.SIGKILL)
        return unit

    async with running(live):
        await live.feed(turns=2, change=kill)
    units = live.made.rung("aac-1")
    assert len({unit.pts for unit in units}) == len(units)
    assert units[-1].pts > 3.8 * 48_000


async def test_a_source_that_changes_its_size_gets_another_plan() -> None:
    wide, tall = clip(), make_source(*X264, "-g", "15", size="240x180", seconds=1)
    live = Live(wide)
    async with running(live):
        await live.feed(speed=2)
        live.stream.set_track(structs.replace(tall.tracks[0], config_id=1))
        for unit in tall.units:
            live.stream.append(
                [
                    unit.replaced(
                        seq=live.seq,
                        config_id=1,
                        pts=unit.pts + 270_000,
                        dts=unit.dts + 270_000,
                    )
                ]
            )
            live.seq += 1
    for rung in live.transcoder.plan.video:
        tracks = live.tracks[rung.track_id]
        assert [track.config_id for track in tracks] == [0, 1]
        assert tracks[1].config.width == rung.width < tracks[0].config.width
        units = live.made.rung(rung.name)
        assert [u.pts for u in units if u.discontinuity] == [tall.units[0].pts + 270_000]


async def test_nothing_to_make_waits_for_something_or_the_end() -> None:
    live = Live(clip(), choose=lambda tracks: plan_for(tracks) if tracks else LadderPlan())
    async with running(live):
        await trio.testing.wait_all_tasks_blocked()
        assert live.transcoder.state == "waiting"
        live.set_tracks()
        await live.feed(speed=4)
    assert live.gops(MIDDLE)
    nothing = Live(clip(), choose=lambda tracks: LadderPlan())
    async with running(nothing):
        await nothing.feed(speed=float("inf"))
    assert nothing.transcoder.state == "ended"
    assert nothing.units == {}


@pytest.mark.parametrize("at_once", [True, False])
async def test_paused_it_has_no_child_and_resumed_it_goes_on_with_whole_gops(
    *, at_once: bool
) -> None:
    live = Live(clip())
    async with running(live), trio.open_nursery() as nursery:
        await live.begun()
        nursery.start_soon(lambda: live.feed(turns=3, speed=1.5))
        await live.wait_until(lambda: len(live.units) > 2 and len(live.made.rung(MIDDLE)) > 20)
        assert live.transcoder._session is not None
        pid = live.transcoder._session.child.pid
        live.transcoder.pause("for the test")
        assert live.wanted == [("120p", "96p", "64p"), ()]
        if not at_once:
            await live.wait_until(lambda: live.transcoder._session is None)
            before = live.transcoder.output.units
            await trio.sleep(0.7)
            assert live.transcoder.statistics().pid is None
            assert live.transcoder.output.units == before
            assert live.transcoder.last_reason == "for the test"
        live.transcoder.resume()
        await live.wait_until(lambda: live.transcoder.statistics().pid not in (None, pid))
    check_whole(live, 3)
    gops = live.gops(MIDDLE)
    assert len(gops) >= 6
    assert sum(len(gop) != 15 for gop in gops) <= 1, "only the one that the pause cut"
    assert live.transcoder.statistics().restarts == 0


async def test_paused_to_the_end_it_ends_with_its_source() -> None:
    live = Live(clip())
    live.transcoder.pause("for ever")
    async with running(live):
        await live.feed(speed=8)
    assert live.transcoder.state == "ended"
    assert not live.units


async def test_cancelled_its_child_is_gone() -> None:
    live = Live(clip())
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.transcoder.run)
            live.set_tracks()
            await live.wait_until(lambda: live.transcoder.state == "running")
            pid = live.transcoder.statistics().pid
            nursery.cancel_scope.cancel()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert live.transcoder.state == "ended"
    assert not live.stream._wakes, "it watches no more"


PARENT = """
import trio
from tests.origin.live import Live, running
from tests.origin.test_transcoder import clip

async def main():
    live = Live(clip())
    async with running(live):
        await live.begun()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: live.feed(turns=10))
            await live.wait_until(lambda: live.transcoder.statistics().units_out > 20)
            print(live.transcoder.statistics().pid, flush=True)

trio.run(main)
"""


def test_its_parent_killed_it_is_gone_at_once() -> None:
    arguments = [sys.executable, "-c", PARENT]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as parent:  # noqa: S603 - our own
        assert parent.stdout is not None
        line = b""
        while not line.strip().isdigit():  # Lines of the log come before.
            line = parent.stdout.readline()
            assert line, "it ended"
        parent.kill()
    deadline = time.monotonic() + 2.0
    while Path(f"/proc/{int(line)}/cmdline").exists() and time.monotonic() < deadline:
        if not Path(f"/proc/{int(line)}/cmdline").read_bytes():
            break  # A zombie, which whoever inherited it has yet to reap.
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{int(line)}").exists()
