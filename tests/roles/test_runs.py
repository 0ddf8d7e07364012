"""Runs that are let go of: drained ones wait for their publishers, stopped ones end at once."""

import trio
from structlog.testing import capture_logs

from edged.roles.runs import KEY_FRAME_S_MIN
from tests.backbone.network import until
from tests.roles.test_door import Control
from tests.roles.test_door_returns import one_pop, request


async def test_a_drained_run_waits_for_its_publisher_and_goes_on_with_it() -> None:
    async with one_pop() as (origin, place):
        control = Control()
        publication = await place.publish(control, frames=30)
        await until(lambda: origin.units("alice"))
        stream = publication.stream
        place.door.drain(stream, "rtmp://other/live")
        assert control.drains == ["rtmp://other/live"]
        publication.end("drain: this PoP is draining; connect again")
        assert place.door.waiting == 1
        assert place.door.published == [stream]
        place.door.drain(stream, None)  # Nobody is there to be told.
        assert control.drains == ["rtmp://other/live"]
        again = await place.publish(frames=30)
        await until(lambda: place.door.waiting == 0)
        assert again.stream is stream
        again.end("the broadcaster said goodbye")
        assert place.door.published == [], "only a drain makes that a loss"


async def test_a_stopped_run_ends_with_or_without_its_publisher() -> None:
    async with one_pop() as (origin, place):
        control = Control()
        publication = await place.publish(control, frames=30)
        await until(lambda: origin.units("alice"))
        publication.lose("the line broke")
        assert place.door.waiting == 1
        place.door.stop(publication.stream, "Rejected", "drain: enough")
        assert (place.door.published, control.stops) == ([], [])
        publication = await place.door.publish(request(), control)
        place.door.stop(publication.stream, "Rejected", "drain: enough")
        assert control.stops == [("Rejected", "drain: enough")]
        assert place.door.published == []
        assert publication.stream.ended == "drain: enough"


async def test_another_grace_is_for_who_is_lost_from_then_on() -> None:
    async with one_pop() as (origin, place):
        publication = await place.publish(frames=30)
        await until(lambda: origin.units("alice"))
        place.door.use_grace(0.0)
        publication.lose("the line broke")
        assert place.door.waiting == 0
        assert place.door.published == []


async def test_a_publisher_is_asked_for_a_key_frame_by_a_reader_at_the_origin() -> None:
    async with one_pop() as (origin, place):
        control = Control()
        publication = await place.publish(control, frames=30)
        await until(lambda: origin.units("alice"))
        stream_id = publication.stream.stream_id
        assert origin.server is not None
        for _ in range(3):  # As many readers: one answer does for all.
            origin.server.want_key_frame(stream_id, 1)
        await until(lambda: control.key_frames)
        await trio.sleep(0.05)
        assert control.key_frames == 1
        run = place.door._runs["alice"]
        run.key_frame_wanted_at -= KEY_FRAME_S_MIN
        control.fails = True
        with capture_logs() as logs:
            place.door.want_key_frame(publication.stream)
        assert [line["event"] for line in logs] == ["publisher failed to be asked"]
        publication.lose("the line broke")
        run.key_frame_wanted_at -= KEY_FRAME_S_MIN
        place.door.want_key_frame(publication.stream)  # Nobody is there to be asked.
        assert control.key_frames == 1
