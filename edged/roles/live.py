"""`edged live` at IRS: who is live where in the network."""

from collections.abc import Sequence

from msgspec import structs

from edged.api.admin import Arguments, Handler
from edged.errors import EdgedError
from edged.irs.live_board import LiveAnswer, LiveQuery
from edged.roles.irs import IrsRole

LIMIT_DEFAULT = 100
LIMIT_MAX = 10_000  # 30 ms of IRS's loop.
TEXT_CHARS_MAX = 256


def make_handlers(roles: Sequence[object]) -> dict[str, Handler]:
    """The command; where no IRS runs it says where to ask."""
    services = [role.service for role in roles if isinstance(role, IrsRole)]
    boards = [(service.live, service.reach) for service in services]

    def live(arguments: Arguments) -> list[LiveAnswer]:
        if not boards:
            raise EdgedError(
                "this edged is no IRS: ask the one that runs it who is live in the network,"
                " or `edged streams` what is live here"
            )
        query = parse_query(arguments)
        return [
            structs.replace(live.answer(query), ways=reach.ways(query.channel))
            if query.channel
            else live.answer(query)
            for live, reach in boards
        ]

    return {"live": live}


def parse_query(arguments: Arguments) -> LiveQuery:
    """From words of a command; raises EdgedError for what is none."""
    words = {}
    for name in ("channel", "text", "pop", "origin"):
        words[name] = arguments.get(name, "")
        if len(words[name]) > TEXT_CHARS_MAX:
            raise EdgedError(f"{name} of {len(words[name])} characters exceeds {TEXT_CHARS_MAX}")
    return LiveQuery(**words, limit=_read_limit(arguments.get("limit", "")))


def _read_limit(text: str) -> int:
    if not text:
        return LIMIT_DEFAULT
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:9]) <= LIMIT_MAX:
        raise EdgedError(f"limit {text[:40]!r} is no number from 1 to {LIMIT_MAX}")
    return int(text)
