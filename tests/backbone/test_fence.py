from edged.backbone.fence import Fence, explain_fence
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


def test_a_run_fenced_by_one_that_has_ended_is_told_so() -> None:
    older, newest = StreamId("alice", 0x7F, 1), StreamId("alice", 0x80, 2)
    assert explain_fence(older, newest, live=True) == (
        "publication 7f epoch 1 of 'alice' is not newer than publication 80 epoch 2, "
        "which is live here"
    )
    assert explain_fence(older, newest, live=False) == (
        "publication 7f epoch 1 of 'alice' is not newer than publication 80 epoch 2, "
        "which has ended here or goes elsewhere"
    )
