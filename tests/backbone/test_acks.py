import pytest

from edged.backbone.acks import (
    ACKS_PER_MESSAGE_MAX,
    SPLICE_BYTES_PER_MESSAGE_MAX,
    in_messages,
)
from edged.wire.backbone.messages import StreamAck


@pytest.mark.parametrize(("size", "messages"), [(1, 2), (1310, 2), (2000, 3)])
def test_acks_are_told_in_messages_that_are_not_too_large(size: int, messages: int) -> None:
    acks = [StreamAck(number, 1, 0, 0, [], bytes(size)) for number in range(300)]
    parted = list(in_messages(acks))
    assert len(parted) == messages
    assert [ack for some in parted for ack in some] == acks
    for some in parted:
        assert len(some) <= ACKS_PER_MESSAGE_MAX
        assert sum(len(ack.splice) for ack in some) <= SPLICE_BYTES_PER_MESSAGE_MAX
    assert list(in_messages([])) == []
    large = StreamAck(1, 1, 0, 0, [], bytes(SPLICE_BYTES_PER_MESSAGE_MAX + 1))
    assert list(in_messages([large, large])) == [[large], [large]]
