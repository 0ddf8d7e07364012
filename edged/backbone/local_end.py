"""Who speaks on the backbone."""

from msgspec import Struct

from edged.media.stream import PriorityClass
from edged.wire.backbone.messages import FEATURES, PROTO, Hello, Purpose


class BackboneConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[backbone]`: what goes between our own hosts."""

    dscp: bool = True  # Its sockets are marked: CS6 for control, AF41 to AF43 for media by class.


class LocalEnd(Struct, frozen=True, kw_only=True):
    """Who we are. `instance`: 63 bits of chance per process, an origin's incarnation."""

    role: str
    name: str
    shard: int = 0
    instance: int
    marks: bool = True  # Sessions' sockets get a DSCP.

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
