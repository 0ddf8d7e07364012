"""`edged reach`: what IRS plans, and what a PoP does of it."""

from collections.abc import Sequence

from msgspec import Struct

from edged.api.admin import Arguments, Handler
from edged.errors import EdgedError
from edged.irs.reach_seen import ReachAnswer
from edged.media.routing import TEXT_CHARS_MAX
from edged.roles.irs import IrsRole
from edged.roles.pop import PopRole
from edged.roles.reaching import ReachAtPop


class ReachShown(Struct, frozen=True, kw_only=True):
    """Of one process."""

    plans: list[ReachAnswer]  # Of the IRS in it.
    pops: list[ReachAtPop]


def make_handlers(roles: Sequence[object]) -> dict[str, Handler]:
    """The command; an origin has nothing to tell."""
    boards = [role.service.reach for role in roles if isinstance(role, IrsRole)]
    pops = [role.reaching for role in roles if isinstance(role, PopRole)]

    def reach(arguments: Arguments) -> list[ReachShown]:
        if not boards and not pops:
            raise EdgedError("this edged is neither an IRS, which plans reach, nor a PoP")
        channel = arguments.get("channel", "")
        if len(channel) > TEXT_CHARS_MAX:
            raise EdgedError(f"channel of {len(channel)} characters exceeds {TEXT_CHARS_MAX}")
        return [
            ReachShown(
                plans=[board.answer(channel) for board in boards],
                pops=[pop.seen(channel) for pop in pops],
            )
        ]

    return {"reach": reach}
