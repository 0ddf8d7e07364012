"""Tags of streams that are elsewhere, as the directory has them."""

from edged.backbone.directory import DirectoryRecord
from edged.media.stream import StreamId
from edged.policy.pop_view import PopView
from edged.roles.group_tags import GroupTags
from edged.wire.backbone.messages import DirectoryEntry


def listed(origin: str, *tags: str) -> DirectoryRecord:
    return DirectoryRecord(origin, DirectoryEntry(stream_id=StreamId("alice", 1), tags=tags))


def test_a_channel_s_tags_are_where_it_was_listed_last() -> None:
    view = PopView("ams1")
    tags = GroupTags(view)
    tags.learn("alice", listed("fra1", "event:1", "music"))
    assert view.homes("event:1") == view.homes("music") == {"fra1": 1}
    tags.learn("alice", listed("fra2", "event:1"))
    assert view.homes("event:1") == {"fra2": 1}
    assert view.homes("music") == {}
    tags.learn("bob", listed("fra2", "event:1"))
    tags.learn("alice", None)
    assert view.homes("event:1") == {"fra2": 1}
    tags.learn("bob", listed("fra2"))
    assert view.homes("event:1") == {}
