from edged.backbone.local_end import LocalEnd
from edged.media.stream import PriorityClass
from edged.wire.backbone.messages import FEATURES, PROTO


def test_what_it_says_first() -> None:
    hello = LocalEnd(role="pop", name="ams", shard=2, instance=7).hello(
        "media", PriorityClass.AFFILIATE
    )
    assert (hello.role, hello.name, hello.shard, hello.instance) == ("pop", "ams", 2, 7)
    assert (hello.purpose, hello.priority) == ("media", PriorityClass.AFFILIATE)
    assert (hello.proto, hello.features) == (PROTO, FEATURES)
