"""Which encoders work on this machine: each is tried in a child process, when an origin starts."""

from collections.abc import Sequence

import msgspec
import structlog
import trio

from edged.origin.speed import ask_child
from edged.policy.ladder import ENCODERS, X264, EncoderName
from edged.policy.ladder_encoders import (
    REASON_CHARS_MAX,
    EncoderProbed,
    EncodersFound,
    choose_candidates,
)

MODULE = "edged.origin.encoder_probe_child"
PROBE_S_MAX = 10.0  # Of all of them, at once: Python, FFmpeg, a driver, and 30 small pictures.

logger = structlog.get_logger("edged.ladder")


async def find_encoders(
    name: EncoderName, command: Sequence[str] = ("-m", MODULE), *, limit_s: float = PROBE_S_MAX
) -> EncodersFound:
    """Try what this configuration may use, and log the choice with its reason."""
    began = trio.current_time()
    reasons: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        for encoder in choose_candidates(name):
            nursery.start_soon(_probe, encoder, command, limit_s, reasons)
    working = [encoder for encoder, reason in reasons.items() if not reason]
    found = EncodersFound(
        encoders=(*(each for each in ENCODERS.values() if each in working), X264),
        missing={encoder: reason for encoder, reason in sorted(reasons.items()) if reason},
    )
    logger.info(
        "ladder encoder",
        text=found.explain(name),
        configured=name,
        works=list(found.encoders),
        missing=found.missing,
        took_s=round(trio.current_time() - began, 2),
    )
    return found


async def _probe(
    encoder: str, command: Sequence[str], limit_s: float, reasons: dict[str, str]
) -> None:
    """Try one; why it does not work, or "" if it does, goes into `reasons`."""
    said: list[str] = []
    reason = f"no answer for {limit_s:g} s"
    with trio.move_on_after(limit_s):
        try:
            answer = await ask_child([*command, encoder], said)
            if answer:
                probed = msgspec.json.decode(answer, type=EncoderProbed)
                reason = "" if probed.works else probed.reason or "does not work"
            else:
                reason = said[-1] if said else "its driver crashed, or ended the process"
        except (OSError, msgspec.DecodeError) as error:
            reason = str(error)
    reasons[encoder] = reason[:REASON_CHARS_MAX]
