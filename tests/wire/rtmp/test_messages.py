import contextlib

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.wire.rtmp import messages as m
from edged.wire.rtmp.messages import Command, Message


def test_commands_with_and_without_the_amf3_wrapper() -> None:
    body = m.encode_command("publish", 5, [None, "key", "live"])
    expected = Command("publish", 5.0, [None, "key", "live"])
    assert m.decode_command(Message(m.COMMAND_AMF0, 0, 1, body)) == expected
    assert m.decode_command(Message(m.COMMAND_AMF3, 0, 1, b"\0" + body)) == expected
    with pytest.raises(RemoteProtocolError, match="format selector is 3, not 0"):
        m.decode_command(Message(m.COMMAND_AMF3, 0, 1, b"\x03" + body))


def test_a_command_may_lack_its_transaction_id() -> None:
    name_only = m.encode_command("x", 0, [])[:4]
    assert m.decode_command(Message(m.COMMAND_AMF0, 0, 0, name_only)) == Command("x", 0.0, [])
    with pytest.raises(RemoteProtocolError, match="name is a NoneType"):
        m.decode_command(Message(m.COMMAND_AMF0, 0, 0, b""))


def test_arguments_by_kind() -> None:
    command = Command("connect", 1.0, [{"app": "live"}, "text"])
    assert command.members(0) == {"app": "live"}
    assert command.members(1) == {}
    assert command.members(9) == {}
    assert command.text(1) == "text"
    assert command.text(0) == ""
    assert command.text(9) == ""


def test_u32() -> None:
    assert m.u32_of(Message(1, 0, 0, b"\0\0\x10\0more"), "set chunk size") == 4096
    with pytest.raises(RemoteProtocolError, match="set chunk size of 3 bytes is shorter than 4"):
        m.u32_of(Message(1, 0, 0, b"\0\0\x10"), "set chunk size")


def test_user_control() -> None:
    assert m.user_control(m.PING_REQUEST, 2**32 + 7) == b"\0\x06\0\0\0\x07"


def tag(kind: int, timestamp: int, body: bytes, back_pointer: bool = True) -> bytes:
    head = bytes([kind]) + len(body).to_bytes(3, "big")
    head += (timestamp & 0xFFFFFF).to_bytes(3, "big") + bytes([timestamp >> 24]) + b"\0\0\x09"
    return head + body + ((11 + len(body)).to_bytes(4, "big") if back_pointer else b"")


def aggregate(body: bytes, timestamp: int = 1000) -> Message:
    return Message(m.AGGREGATE, timestamp, 1, body)


def test_an_aggregate_moves_its_times() -> None:
    first, second = 0x1000000, 0x1000000 + 40
    body = tag(m.AUDIO, first, b"ab") + tag(m.VIDEO, second, b"cde", back_pointer=False)
    inner = m.split_aggregate(aggregate(body))
    assert [(i.kind, i.timestamp, i.stream_id, bytes(i.body)) for i in inner] == [
        (m.AUDIO, 1000, 1, b"ab"),
        (m.VIDEO, 1040, 1, b"cde"),
    ]


def test_an_aggregate_across_the_wrap() -> None:
    body = tag(m.AUDIO, 0, b"a") + tag(m.AUDIO, 20, b"b")
    inner = m.split_aggregate(aggregate(body, timestamp=2**32 - 10))
    assert [i.timestamp for i in inner] == [2**32 - 10, 10]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x08\0\0", "ends inside a tag header at byte 0"),
        (tag(8, 0, b"abc")[:13], "ends at 13, its tag at byte 0 at 14"),
        (tag(m.AGGREGATE, 0, b""), "aggregate inside an aggregate"),
    ],
)
def test_broken_aggregates(body: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        m.split_aggregate(aggregate(body))


def test_messages_in_an_aggregate_at_the_limit_and_one_past_it() -> None:
    one = tag(m.AUDIO, 0, b"")
    limit = m.AGGREGATE_MESSAGES_MAX
    assert len(m.split_aggregate(aggregate(limit * one))) == limit
    with pytest.raises(RemoteProtocolError, match=f"more than {limit} messages"):
        m.split_aggregate(aggregate((limit + 1) * one))


@hypothesis.given(st.binary(max_size=60))
@hypothesis.settings(max_examples=60, deadline=None)
def test_garbage_raises_only_a_protocol_error(garbage: bytes) -> None:
    for kind in (m.COMMAND_AMF0, m.COMMAND_AMF3):
        with contextlib.suppress(RemoteProtocolError):
            m.decode_command(Message(kind, 0, 0, garbage))
    with contextlib.suppress(RemoteProtocolError):
        m.split_aggregate(aggregate(garbage))
