"""Where a stream could go now, asked by a PoP, and the wait for a first answer."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import trio

from edged.errors import PublishRefusedError, RouteUnavailableError
from edged.media.routing import RouteRequest
from edged.policy.pop_view import PopView
from edged.policy.routing_table import Decision, choose_incumbent, choose_origin
from edged.roles.placement import LINK_FULL, NO_ROUTE, Placement

ROUTE_WAIT_S_MAX = 3.0  # A publisher that is there before the first origin; encoders wait longer.


class RouteFinding:
    """The questions of one PoP shard. Nothing is placed here."""

    def __init__(
        self, view: PopView, placements: Mapping[str, Placement], now: Callable[[], float]
    ) -> None:
        """`placements`: by channel."""
        self._view, self._placements, self._now = view, placements, now
        self._changed = trio.Event()

    async def wait_route(self, request: RouteRequest) -> None:
        """Give a PoP that has just started the time to reach its origins.

        Returns as soon as there is a route, or an origin is reached that does not take the stream,
        or the time is over; who places it then hears why not.
        """
        with trio.move_on_after(ROUTE_WAIT_S_MAX):
            while not self._view.reached and self.find(request) is None:
                await self._changed.wait()

    def changed(self) -> None:
        """Have those who wait for a route look again."""
        self._changed.set()
        self._changed = trio.Event()

    def check(self, request: RouteRequest) -> None:
        """Raise `PublishRefusedError` if no origin would take the stream now, before it is made.

        The channel's older run here, if any, gives its place back to the newcomer.
        """
        with self._without_older(request):
            self.choose(request)

    def exists(self, request: RouteRequest) -> bool:
        """The same as a question: nothing is counted."""
        with self._without_older(request):
            return self.find(request) is not None

    def can_join(self, request: RouteRequest, origin: str) -> bool:
        """Whether a run that an origin has may go on there from here."""
        return choose_incumbent(request, self._view, origin) is not None

    def choose(self, request: RouteRequest) -> Decision:
        """Choose for a stream that is to be placed; raises `PublishRefusedError`, and counts it."""
        now = self._now()
        try:
            return choose_origin(request, self._view, now)
        except RouteUnavailableError as error:
            self._view.note_request(request, placed=False)
            if self._view.full.keeps_from(error.rejected, request.priority, now):
                why = LINK_FULL.format(request.priority.label)
                raise PublishRefusedError("full", why, str(error)) from error
            raise PublishRefusedError("no_route", NO_ROUTE, str(error)) from error

    def choose_incumbent(self, request: RouteRequest, origin: str) -> Decision:
        """Choose who has the run; raises `PublishRefusedError` if nothing may go there."""
        decision = choose_incumbent(request, self._view, origin)
        if decision is None:
            detail = f"origin {origin} has the run, and nothing may go there now"
            raise PublishRefusedError("no_route", NO_ROUTE, detail)
        return decision

    def find(self, request: RouteRequest) -> Decision | None:
        """As `choose`, but None if there is none, and nothing is counted."""
        with contextlib.suppress(RouteUnavailableError):
            return choose_origin(request, self._view, self._now())
        return None

    @contextlib.contextmanager
    def _without_older(self, request: RouteRequest) -> Iterator[None]:
        """As if the channel's older run here, if any, had given its place back."""
        older = self._placements.get(request.channel)
        if older is not None:
            self._view.released(older.decision.origin, older.request)
        try:
            yield
        finally:
            if older is not None:
                self._view.placed(older.decision.origin, older.request, is_there=older.accepted)
