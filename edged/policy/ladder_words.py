"""How a stream's ladder fares, in a sentence: for the status page and the command line."""

from collections.abc import Hashable, Mapping
from typing import Literal, Protocol, TypeVar

from msgspec import Struct

from edged.media.ladder import LadderPlan
from edged.policy.ladder_slots import Standing

LadderState = Literal[
    "measuring",  # The machine's speed, before any ladder is made.
    "none",  # There is nothing to make.
    "waits",  # For slots.
    "preempted",
    "starting",
    "running",
    "failed",  # And is begun anew.
    "ended",
]
TEXT_CHARS_MAX = 200

Key = TypeVar("Key", bound=Hashable)


class LadderSeen(Struct, frozen=True, kw_only=True):
    """A stream's ladder as people are told of it."""

    state: LadderState
    text: str  # A sentence without its full stop.
    rungs: list[str] = []  # That are made.
    shed: list[str] = []
    factor: float = 0.0  # x real time, lately; 0: not known.
    behind_s: float = 0.0
    slots: int = 0  # That it holds, or would.
    before: int = 0  # Of those that wait.
    restarts: int = 0
    encoder: str = ""  # FFmpeg's name of it; "": no picture is encoded.

    @property
    def is_lacking(self) -> bool:
        """Whether viewers have less than the configuration would give them."""
        return self.state in ("waits", "preempted", "failed") or bool(self.shed)


class Making(Protocol):
    """How the making of a ladder fares, as its transcoder says."""

    @property
    def state(self) -> Literal["waiting", "starting", "running", "ending", "ended"]: ...
    @property
    def factor(self) -> float: ...
    @property
    def queue_s(self) -> float: ...
    @property
    def restarts(self) -> int: ...
    @property
    def rungs(self) -> tuple[str, ...]: ...
    @property
    def shed(self) -> tuple[str, ...]: ...
    @property
    def last_reason(self) -> str: ...


def describe_ladder(
    plan: LadderPlan,
    making: Making,
    standing: Standing[Key] | None,
    *,
    is_measured: bool,
    total: int,
    preempted_by: str,
    encoders_failed: Mapping[str, str] | None = None,
    held: str = "",
) -> LadderSeen:
    """`total`: slots that there are; `preempted_by`: a class and a channel, or "";
    `encoders_failed`: those that this ladder has given up, and why; `held`: why it may not be made.
    """
    state, text = _choose_words(
        plan, making, standing, is_measured=is_measured, total=total, preempted_by=preempted_by
    )
    if held and state != "ended":
        state, text = "waits", f"ladder waits: {held}"
    is_made = state in ("starting", "running", "failed")
    if encoders_failed and state in ("starting", "running"):
        told = "; ".join(f"{name} {why}" for name, why in sorted(encoders_failed.items()))
        text += f"; now {plan.encoder}: {told}"
    sound = [rung.name for rung in plan.audio]
    return LadderSeen(
        state=state,
        text=text[:TEXT_CHARS_MAX],
        rungs=[*making.rungs, *sound] if is_made else [],
        shed=list(making.shed) if is_made else [],
        factor=round(making.factor, 2),
        behind_s=round(making.queue_s, 1),
        slots=0 if standing is None else standing.cost,
        before=0 if standing is None else standing.before,
        restarts=making.restarts,
        encoder=plan.encoder if is_made and plan.video else "",
    )


def _choose_words(
    plan: LadderPlan,
    making: Making,
    standing: Standing[Key] | None,
    *,
    is_measured: bool,
    total: int,
    preempted_by: str,
) -> tuple[LadderState, str]:
    if not is_measured:
        return "measuring", "ladder waits: this machine is being measured"
    if making.state == "ended":
        return "ended", "ladder ended"
    if standing is None:
        why = plan.notes[-1] if plan.notes else "nothing has come yet to make it of"
        return "none", f"no ladder: {why}"
    if not standing.holds:
        return _explain_wait(standing, total, preempted_by)
    return _explain_making(plan, making)


def _explain_making(plan: LadderPlan, making: Making) -> tuple[LadderState, str]:
    names = " ".join([*making.rungs, *(rung.name for rung in plan.audio)])
    if making.state == "starting":
        return "starting", f"ladder starts: {names}"
    if making.state == "waiting":
        return "failed", f"ladder failed, begun anew: {making.last_reason or 'no reason known'}"
    text = f"ladder: {names}"
    if making.factor:
        text += f", {making.factor:.1f} x real time"
    if making.shed:
        what = making.last_reason
        text += f"; {what}" if " shed: " in what else f"; shed: {' '.join(making.shed)}"
    return "running", text


def _explain_wait(
    standing: Standing[Key], total: int, preempted_by: str
) -> tuple[LadderState, str]:
    need = f"it needs {standing.cost} of {total} slots"
    if standing.is_too_large:
        return "waits", f"no ladder: {need}"
    if preempted_by:
        return "preempted", f"ladder preempted for {preempted_by}; {need}"
    if standing.preempted_by is not None:
        return "preempted", f"ladder stopped: {need} now"
    return "waits", f"ladder waits: {standing.before} before it; {need}"
