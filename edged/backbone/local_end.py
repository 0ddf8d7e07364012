"""Who speaks on the backbone."""

from msgspec import Struct

from edged.media.stream import PriorityClass
from edged.wire.backbone.messages import FEATURES, PROTO, Hello, Purpose


class LocalEnd(Struct, frozen=True, kw_only=True):
    """Who we are. `instance`: 63 bits of chance per process, an origin's incarnation."""

    role: str
    name: str
    shard: int = 0
    instance: int

    def hello(self, purpose: Purpose, priority: PriorityClass) -> Hello:
        """What we say first."""
        return Hello(
            proto=PROTO,
            role=self.role,
            name=self.name,
            shard=self.shard,
            instance=self.instance,
            purpose=purpose,
            priority=priority,
            features=FEATURES,
        )
