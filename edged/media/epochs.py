"""What several IRSs and the PoPs between them say: who may push tables, and what must not be lost.

`wire.table` carries these Structs, `policy.epoch_grants` and `policy.epoch_claim` decide with them.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from edged.errors import RemoteProtocolError
from edged.media.routing import Address, Name, Seconds, Unix

EPOCH_LEASE_S = 3.0  # So long a PoP grants an epoch; renewed each second.
DRAINS_MAX = 64  # As many as a PoP takes.
EPOCH_MAX = 2**63 - 1
EPOCH_AHEAD_S_MAX = 10 * 365 * 86_400  # Epochs begin as Unix seconds; beyond, one is a fault.
BY_CHARS_MAX = 64

Epoch = Annotated[int, Meta(ge=0, le=EPOCH_MAX)]
REVISION_MAX = 2**31 - 1  # Of memos under one epoch, and of asks in one session: decades.
Revision = Annotated[int, Meta(ge=0, le=REVISION_MAX)]
Stamp = tuple[Epoch, Revision]
UNASKED = 0  # Number of an answer to no ask: nobody has the lease any more. Asks begin at 1.
IrsId = Annotated[str, Meta(min_length=1, max_length=32)]  # Of one run of an IRS, by chance.


def is_plausible(epoch: int, unix: float) -> bool:
    """Whether an epoch can have been come by, at this time: each begins as Unix seconds."""
    return epoch <= unix + EPOCH_AHEAD_S_MAX


def check_plausible(epoch: int, unix: float, whose: str) -> None:
    """Raise RemoteProtocolError for an epoch that is a fault: nobody could ever go above it."""
    if not is_plausible(epoch, unix):
        raise RemoteProtocolError(
            f"epoch {epoch} of {whose} lies years ahead, {unix + EPOCH_AHEAD_S_MAX:.0f} is the most"
        )


class DrainNote(Struct, frozen=True, kw_only=True):
    """An origin that an operator wants empty."""

    origin: Name
    since: Unix  # When it was asked for, by the clock of the IRS that was asked.
    until: Unix
    left_s: Seconds = 0.0  # Until then, when this was said: clocks differ.
    by: Annotated[str, Meta(max_length=BY_CHARS_MAX)] = ""


class IrsMemo(Struct, frozen=True, tag="memo", kw_only=True):
    """What operators asked of IRS, whole: the newest (epoch, revision) holds.

    The active IRS leaves it with every PoP that has granted it an epoch, and a PoP shows it to each
    IRS that asks for one. Who gets a majority has thus heard from one PoP at least that had it.
    """

    epoch: Epoch = 0
    revision: Revision = 0
    drains: Annotated[tuple[DrainNote, ...], Meta(max_length=DRAINS_MAX)] = ()

    @property
    def stamp(self) -> Stamp:
        """The newest holds."""
        return self.epoch, self.revision


class EpochAsk(Struct, frozen=True, tag="epoch-ask", kw_only=True):
    """IRS asks a PoP for the right to push it tables under an epoch.

    "look" changes nothing, "want" is granted for EPOCH_LEASE_S unless another IRS has it, "release"
    gives it back.
    """

    irs: IrsId
    number: Revision  # Rises within a session; the answer names it.
    kind: Literal["look", "want", "release"]
    epoch: Epoch
    memo: Stamp = (0, 0)  # What the asker has.


class EpochAnswer(Struct, frozen=True, tag="epoch-answer", kw_only=True):
    """What a PoP answers; UNASKED, it says to others that who had the lease has given it back.

    An IRS that does not know that takes it for an answer that came too late, and hears at its next
    look.
    """

    number: Revision
    granted: bool
    begins: bool = (
        False  # This session had no grant before: drains are to be told, as at its start.
    )
    epoch: Epoch  # The highest that was granted here, or came with a table.
    left_s: Seconds = 0.0  # So long another IRS has it; 0: nobody else.
    holder: Address = ""  # Where the PoP has a session with that one.
    stamp: Stamp = (0, 0)  # Of the memo that the PoP has.
    memo: IrsMemo | None = None  # If it is newer than the asker's.
