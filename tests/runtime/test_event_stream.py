import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from edged.media.events import StreamEvent, StreamWentLive, StreamWentOffline
from edged.runtime.event_stream import SPECS, EventStream
from edged.runtime.metrics import Metrics

LIVE = StreamWentLive(channel="alice", publication="1f", title="Alice")


def make_stream() -> EventStream:
    return EventStream("ams1", unix_now=lambda: 1_700_000_000.1234, entropy=bytes)


def test_id_time_and_place_are_added_and_it_is_logged() -> None:
    with capture_logs() as logs:
        event = make_stream().emit(LIVE)
    assert isinstance(event, StreamWentLive)
    assert event.event_id == "00" * 16
    assert event.at_ms == 1_700_000_000_123
    assert event.pop == "ams1"
    assert event.title == "Alice"
    (line,) = logs
    assert (line["event"], line["kind"], line["channel"]) == ("event", "stream_went_live", "alice")
    assert (line["event_id"], line["pop"]) == (event.event_id, "ams1")


def test_two_events_have_two_ids() -> None:
    stream = EventStream("ams1")
    assert stream.emit(LIVE).event_id != stream.emit(LIVE).event_id


async def test_each_subscriber_gets_all_from_when_it_came() -> None:
    stream = make_stream()
    stream.emit(LIVE)
    early = stream.subscribe("early")
    first = stream.emit(LIVE)
    late = stream.subscribe("late")
    second = stream.emit(StreamWentOffline(channel="alice", publication="1f"))
    assert [await early.receive() for _ in range(2)] == [first, second]
    assert await late.receive() == second
    late.close()
    stream.emit(LIVE)
    assert (len(early), len(late)) == (1, 0)


async def test_one_waits_for_the_next() -> None:
    stream = make_stream()
    subscription = stream.subscribe("one")
    received: list[StreamEvent] = []

    async def receive() -> None:
        received.append(await subscription.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        assert received == []
        stream.emit(LIVE)
    assert received[0].channel == "alice"


@pytest.mark.parametrize("emitted", [3, 4])
async def test_who_does_not_keep_up_loses_the_oldest(emitted: int) -> None:
    stream = make_stream()
    slow, quick = stream.subscribe("slow", queue_max=3), stream.subscribe("quick")
    for number in range(emitted):
        stream.emit(StreamWentLive(channel=f"c{number}", publication="1"))
    assert slow.dropped_total == emitted - 3
    assert [(await slow.receive()).channel for _ in range(3)] == [
        f"c{number}" for number in range(emitted)
    ][-3:]
    assert (len(quick), quick.dropped_total) == (emitted, 0)


def test_its_numbers() -> None:
    stream, metrics = make_stream(), Metrics()
    stream.register(metrics, role="pop ams1")
    stream.subscribe("webhooks", queue_max=1)
    for _ in range(3):
        stream.emit(LIVE)
    text = metrics.render().decode()
    assert 'edged_events_emitted_total{kind="stream_went_live",role="pop ams1"} 3.0' in text
    assert 'edged_events_emitted_total{kind="title_changed",role="pop ams1"} 0.0' in text
    assert 'edged_events_dropped_total{role="pop ams1",subscriber="webhooks"} 2.0' in text
    assert all(spec.name in text for spec in SPECS)
