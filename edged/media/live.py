"""What PoPs tell IRS of what is published at them: which channel, since when, and where it goes.

`wire.table` carries these Structs, `policy.live_teller` and `policy.live_registry` decide with
them. LiveRow is an array on the wire: new fields go to the end with a default.
"""

from typing import Annotated

from msgspec import Meta, Struct

from edged.media.routing import TEXT_CHARS_MAX, ClassLabel, Text, Unix

ROWS_MAX = 500  # Of one report: some 30 KB, and less than a frame with the longest names.
CHANNELS_MAX = 10_000  # Of one PoP shard: more than it takes publishers.
NUMBER_MAX = 2**31 - 1  # Of asks and reports in one session: decades.
PROTOCOL_CHARS_MAX = 64
ORIGIN_CHARS_MAX = 63

Number = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Rows = Annotated[int, Meta(ge=0, le=2**31)]


class LiveRow(Struct, frozen=True, array_like=True, gc=False):
    """One publication at a PoP shard."""

    channel: Text
    publication: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    home_epoch: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    origin: Annotated[str, Meta(max_length=ORIGIN_CHARS_MAX)]  # "": nowhere at present.
    class_: ClassLabel
    protocol: Annotated[str, Meta(max_length=PROTOCOL_CHARS_MAX)]
    since: Unix  # By the PoP's clock.
    waits: bool = False  # For its publisher, who was lost and may come back.

    @property
    def run(self) -> tuple[int, int]:
        """The newest run of a channel holds, wherever it is published."""
        return self.publication, self.home_epoch


class LiveAsk(Struct, frozen=True, tag="live-ask", kw_only=True):
    """IRS wants to hear all that is live, and then what changes of it."""

    number: Number  # Rises within a session; reports name it.


class LiveReport(Struct, frozen=True, tag="live", kw_only=True):
    """What has changed since the report before; the first of an ask begins with nothing told."""

    ask: Number
    number: Number  # 1, 2, 3 ... of this ask.
    changed: Annotated[tuple[LiveRow, ...], Meta(max_length=ROWS_MAX)] = ()
    removed: Annotated[tuple[Text, ...], Meta(max_length=ROWS_MAX)] = ()
    more: bool = False  # What was told so far is not all.
    count: Rows  # So many rows have been told and hold, this report included.
    omitted: Rows = 0  # Live as well, beyond CHANNELS_MAX.


ROW_BYTES_MAX = 4 * (TEXT_CHARS_MAX + PROTOCOL_CHARS_MAX + ORIGIN_CHARS_MAX) + 64
