"""The child's loop over a socket pair, and the process itself."""

import socket
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from edged.errors import EdgedError
from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.origin.ladder_child import LadderChild
from edged.runtime.child import open_child
from edged.wire.transcode import (
    Event,
    InputEnded,
    Logged,
    OutputEnded,
    Planned,
    Progressed,
    Ready,
    RungsWanted,
    TrackSet,
    TranscodeLink,
)
from tests.origin.sources import X264, Source, collect, make_rungs, make_source, plan_for

if TYPE_CHECKING:
    from edged.media.track import Track

pytestmark = pytest.mark.e2e
DEADLINE_S = 20.0


def clip() -> Source:
    return make_source(*X264, "-bf", "0", "-g", "15", seconds=1)


def converse(*sent: Event) -> list[Event]:
    """Say this to a child and hear it out."""
    ours, theirs = socket.socketpair()
    link = TranscodeLink()
    failures: list[Exception] = []

    def run() -> None:
        with theirs:
            try:
                LadderChild(theirs).run()
            except EdgedError as error:
                failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    for event in sent:
        if isinstance(event, AccessUnit):
            link.send_unit(event)
        else:
            link.send_message(event)
    received: list[Event] = []
    with ours:
        ours.settimeout(DEADLINE_S)
        writer = threading.Thread(target=ours.sendall, args=(link.data_to_send(),))
        writer.start()
        while True:
            if (
                received
                and isinstance(received[-1], Progressed)
                and not isinstance(sent[-1], InputEnded)
            ):
                break
            data = ours.recv(65536)
            if not data:
                break
            received += link.receive_data(data)
        writer.join()
        ours.shutdown(socket.SHUT_WR)
    thread.join(DEADLINE_S)
    if failures:
        raise failures[0]
    return received


def test_units_in_rungs_out() -> None:
    source = clip()
    plan = plan_for(source)
    tracks = [TrackSet(track) for track in source.tracks]
    received = converse(Planned(plan), *tracks, *source.units, InputEnded())
    assert isinstance(received[0], Ready)
    assert received[-1] == OutputEnded()
    done = [each for each in received if isinstance(each, Progressed)]
    assert [each.seq for each in done] == [unit.seq for unit in source.units]
    assert done[-1].busy_us > 0
    assert done[-1].errors == 0
    out: list[Track | AccessUnit] = []
    for each in received:
        if isinstance(each, AccessUnit):
            out.append(each)
        elif isinstance(each, TrackSet):
            out.append(each.track)
    made, expected = collect(plan, None, out), make_rungs(source)
    assert made.units == expected.units
    assert made.tracks == expected.tracks


def test_what_comes_of_a_unit_is_sent_before_it_is_done() -> None:
    source = clip()
    tracks = [TrackSet(track) for track in source.tracks]
    received = converse(Planned(plan_for(source)), *tracks, *source.units[:3], InputEnded())
    first = next(i for i, each in enumerate(received) if isinstance(each, Progressed))
    assert sum(isinstance(each, AccessUnit) for each in received[:first]) >= 1


def test_fewer_rungs_are_wanted() -> None:
    source = clip()
    tracks = [TrackSet(track) for track in source.tracks]
    received = converse(
        Planned(plan_for(source)),
        *tracks,
        source.units[0],
        RungsWanted(("64p",)),
        *source.units[1:],
        InputEnded(),
    )
    made = [each.track_id for each in received if isinstance(each, AccessUnit)]
    lowest = plan_for(source).video[-1].track_id
    assert made.count(lowest) == 30
    assert len(made) == 32


def test_the_first_unit_that_cannot_be_decoded_is_told() -> None:
    source = clip()
    broken = AccessUnit(
        track_id=1, seq=99, config_id=0, pts=10**6, dts=10**6, wallclock_us=0, payload=b"\0\0\0\5x"
    )
    tracks = [TrackSet(track) for track in source.tracks]
    received = converse(
        Planned(plan_for(source)), *tracks, source.units[0], broken, broken, InputEnded()
    )
    lines = [each for each in received if isinstance(each, Logged)]
    assert lines == [Logged("warning", "unit 99 of track 1 cannot be decoded")]


def test_what_is_not_for_a_child() -> None:
    with pytest.raises(EdgedError, match="OutputEnded is not for a child"):
        converse(OutputEnded(), InputEnded())


def test_it_ends_with_its_parent_s_end_of_the_socket() -> None:
    source = clip()
    tracks = [TrackSet(track) for track in source.tracks]
    received = converse(Planned(LadderPlan()), *tracks, source.units[0])
    assert isinstance(received[-1], Progressed)


async def test_the_process_says_why_it_ends() -> None:
    with trio.fail_after(DEADLINE_S):
        async with open_child(["-m", "edged.origin.ladder_child"]) as child:
            await child.stream.send_all(b"garbage that is long enough to be a frame's header")
            said = b""
            while data := await child.errors.receive_some(4096):
                said += data
            assert await child.wait() == 1
        assert said.startswith(b"RemoteProtocolError: frame of unknown kind")
        async with open_child(["-m", "edged.origin.ladder_child"]) as child:
            await child.stream.send_eof()
            assert await child.wait() == 0
