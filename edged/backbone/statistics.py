"""How streams and links to origins fare."""

from typing import Literal

from msgspec import Struct

from edged.wire.backbone.events import LinkStatistics

State = Literal["waiting", "opening", "open", "refused", "closed"]


class ForwardingStatistics(Struct, frozen=True, kw_only=True):
    """How a stream fares."""

    state: State
    received_seq: int
    packaged_seq: int
    lag_units: int  # In the ring, not yet framed.
    units_skipped: int
    reopened: int
    progress_at: float  # When an ack last advanced; -inf for never.


class OriginLinkStatistics(Struct, frozen=True, kw_only=True):
    """How a link fares."""

    origin: str
    address: str
    up: list[str]  # "control", "partner", ...
    forwardings: int
    subscriptions: int
    reconnects: int
    units_skipped: int
    received_bytes: int  # By all its sessions, those that are gone too.
    sent_bytes: int
    control: LinkStatistics | None
