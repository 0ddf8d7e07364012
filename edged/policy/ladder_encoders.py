"""Which encoders of video a machine has, and whether a ladder may go on with the one it got.

A hardware encoder is a driver: that it is compiled in says little, so each is probed, and one that
was good may fail later. A ladder whose encoder fails goes on with x264, for as long as it lives.
"""

from msgspec import Struct, structs

from edged.policy.ladder import ENCODERS, X264, EncoderName, LadderBudget, choose_encoder

HARDWARE = tuple(encoder for encoder in ENCODERS.values() if encoder != X264)
DRIVEN = "driven"  # Argument of a child that has a GPU's driver: it reserves addresses without end.
ENCODER_FAILED = "EncoderError"  # What a child's reason says if its encoder raised an error.
# Of a child that crashed or hung, in a row: the third is the encoder's, as a unit of the source
# that kills a decoder is left out after two.
CRASHES_MAX = 3
HEALTHY_S = 60.0  # One that has run so long has nothing against its encoder.
REASON_CHARS_MAX = 160


class EncoderProbed(Struct, frozen=True, kw_only=True):
    """What trying one found."""

    works: bool
    reason: str  # Why it does not; "" if it does.


class EncodersFound(Struct, frozen=True, kw_only=True):
    """What probing found; nothing but x264 without it."""

    encoders: tuple[str, ...] = (X264,)  # As FFmpeg names them.
    missing: dict[str, str] = {}  # And why others are not among them.

    def explain(self, name: EncoderName) -> str:
        """What this configuration makes of it, in words."""
        return choose_encoder(name, self.apply(LadderBudget()))[1]

    def apply(self, budget: LadderBudget) -> LadderBudget:
        """The budget with these encoders."""
        return structs.replace(budget, encoders=self.encoders, missing=self.missing)


def choose_candidates(name: EncoderName) -> tuple[str, ...]:
    """The encoders to be probed for a configured name; x264 needs no probe."""
    if name == "auto":
        return HARDWARE
    return () if ENCODERS[name] == X264 else (ENCODERS[name],)


class EncoderTrust:
    """What one ladder's failures say of its encoder."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}  # That this ladder uses no more, and why.
        self._crashes = 0

    def note_failure(self, encoder: str, reason: str, ran_s: float) -> bool:
        """A child with this encoder has failed after so long; whether it is to have another."""
        if encoder == X264:
            return False
        self._crashes = 1 if ran_s >= HEALTHY_S else self._crashes + 1
        if ENCODER_FAILED in reason:
            why = f"failed: {reason.partition(f'{ENCODER_FAILED}: ')[2] or reason}"
        elif self._crashes >= CRASHES_MAX:
            why = f"failed {self._crashes} times in a row: {reason}"
        else:
            return False
        self.missing[encoder] = why[:REASON_CHARS_MAX]
        self._crashes = 0
        return True

    def limit(self, budget: LadderBudget) -> LadderBudget:
        """The budget without the encoders that failed here."""
        if not self.missing:
            return budget
        left = tuple(each for each in budget.encoders if each not in self.missing)
        return structs.replace(budget, encoders=left, missing=budget.missing | self.missing)
