"""`edged drain origin NAME` at IRS: every PoP takes its streams off an origin, and back again."""

from collections.abc import Callable, Sequence
from functools import partial

from edged.api.admin import Arguments, Handler
from edged.errors import EdgedError
from edged.irs.moving import DrainSeen
from edged.irs.service import IrsService
from edged.roles.arguments import read_seconds
from edged.roles.irs import IrsRole

DEADLINE_S_MAX = 86_400.0  # A night's maintenance is announced no earlier.


def make_handlers(
    roles: Sequence[object], default_deadline_s: Callable[[], float]
) -> dict[str, Handler]:
    """The commands; where no IRS runs they say where to ask."""
    services = [role.service for role in roles if isinstance(role, IrsRole)]

    def on_irs(
        act: Callable[[IrsService, Arguments], list[DrainSeen]], arguments: Arguments
    ) -> list[DrainSeen]:
        if not services:
            raise EdgedError("this edged is no IRS: ask the one that runs it to drain an origin")
        return act(services[0], arguments)

    def drain(service: IrsService, arguments: Arguments) -> list[DrainSeen]:
        deadline_s = read_seconds(
            arguments, "deadline_s", default_deadline_s(), most=DEADLINE_S_MAX
        )
        service.seat.check_leads()
        known = service.collectors.capacitor.origins
        return [service.moving.drain(_origin(arguments), deadline_s=deadline_s, known=known)]

    def undo(service: IrsService, arguments: Arguments) -> list[DrainSeen]:
        service.seat.check_leads()
        return [service.moving.undo_drain(_origin(arguments))]

    def status(service: IrsService, arguments: Arguments) -> list[DrainSeen]:
        origin = arguments.get("origin", "")
        return [
            seen for seen in service.moving.drains_seen() if not origin or seen.origin == origin
        ]

    return {
        "drain-origin": partial(on_irs, drain),
        "drain-origin-undo": partial(on_irs, undo),
        "drain-origin-status": partial(on_irs, status),
    }


def _origin(arguments: Arguments) -> str:
    origin = arguments.get("origin", "")
    if not origin:
        raise EdgedError("a drain needs an origin's name")
    return origin
