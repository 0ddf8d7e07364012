from edged.backbone.fence import Fence
from edged.media.stream import StreamId


def test_only_the_newest_run_is_admitted() -> None:
    fence = Fence()
    assert fence.newest("a") is None
    for stream_id in (StreamId("a", 7, 1), StreamId("a", 7, 1), StreamId("a", 7, 2)):
        assert fence.admit(stream_id)
    assert not fence.admit(StreamId("a", 7, 1))
    assert not fence.admit(StreamId("a", 6, 9))
    assert fence.admit(StreamId("a", 8, 1))
    assert fence.newest("a") == StreamId("a", 8, 1)
    assert fence.admit(StreamId("b", 1, 1))


def test_the_least_recently_renewed_channel_is_forgotten_at_the_limit() -> None:
    fence = Fence(channels_max=2)
    for channel in "aba":
        fence.admit(StreamId(channel, 7, 1))
    assert not fence.admit(StreamId("b", 6, 1))
    fence.admit(StreamId("c", 7, 1))
    assert fence.newest("b") is None
    assert fence.newest("a") == StreamId("a", 7, 1)
