import msgspec
import pytest

from edged.media.events import (
    EVENT_TYPES,
    KINDS,
    Event,
    HealthWarned,
    StreamEvent,
    StreamRehomed,
    StreamWentLive,
    ignore_event,
)


def test_every_kind_has_its_type_and_its_name() -> None:
    assert tuple(kind.__struct_config__.tag for kind in EVENT_TYPES) == KINDS
    assert set(Event.__args__) == set(EVENT_TYPES)
    assert StreamWentLive(channel="alice", publication="1f").kind == "stream_went_live"


def test_as_json() -> None:
    event = StreamRehomed(
        channel="alice", publication="1f", origin_before="a", origin_after="b", at_ms=5, pop="ams1"
    )
    read = msgspec.json.decode(msgspec.json.encode(event))
    assert read == {
        "event": "stream_rehomed",
        "channel": "alice",
        "publication": "1f",
        "event_id": "",
        "at_ms": 5,
        "pop": "ams1",
        "origin_before": "a",
        "origin_after": "b",
        "why": "",
        "home_epoch": 1,
    }
    assert msgspec.convert(read, Event) == event


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_any_can_be_read_again(kind: type[StreamEvent]) -> None:
    given: dict[str, object] = {"channel": "a", "publication": "1"}
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in given:
            given[field.name] = {"severity": "info", "value": 1.0, "limit": 2.0, "number": 3}.get(
                field.name, "text"
            )
    event = msgspec.convert({"event": kind.__struct_config__.tag, **given}, kind)
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event
    ignore_event(event)


def test_a_severity_is_one_of_three() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(
            {"event": "health_warned", "channel": "a", "publication": "1", "code": "x",
             "severity": "doom", "text": "", "value": 1.0, "limit": 1.0},
            HealthWarned,
        )  # fmt: skip
