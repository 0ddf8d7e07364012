"""Acks of many streams, as messages that the wire takes."""

from collections.abc import Iterator

from edged.wire.backbone.messages import StreamAck

ACKS_PER_MESSAGE_MAX = 200  # With some 30 renditions each they stay below MESSAGE_BYTES_MAX,
SPLICE_BYTES_PER_MESSAGE_MAX = 256 * 1024  # also with so much of these.


def in_messages(acks: list[StreamAck]) -> Iterator[list[StreamAck]]:
    """The acks in lists that each fit a message."""
    some: list[StreamAck] = []
    size = 0
    for ack in acks:
        size += len(ack.splice)
        full = len(some) == ACKS_PER_MESSAGE_MAX or size > SPLICE_BYTES_PER_MESSAGE_MAX
        if some and full:
            yield some
            some, size = [], len(ack.splice)
        some.append(ack)
    if some:
        yield some
