"""The connections that IRS has room for. At the limit the first of the silent makes room.

Who connects and says nothing holds a place for its handshake's time; enough of them would keep
PoPs and origins out for as long, so who has said who it is stays and who has not goes.
"""

import contextlib
from collections.abc import Iterator

import trio


class Places:
    """Each place is a scope: its caller's task runs in it, and is cancelled when it has to go."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.given_up = 0  # Silent callers that had to make room.
        self._silent: dict[trio.CancelScope, None] = {}  # In order of arrival.
        self._known: set[trio.CancelScope] = set()

    def __len__(self) -> int:
        return len(self._silent) + len(self._known)

    def take(self) -> trio.CancelScope | None:
        """A place for a new caller; None where all are taken by peers that are known."""
        if len(self) >= self.most:
            if not self._silent:
                return None
            first = next(iter(self._silent))
            del self._silent[first]  # Its task ends soon: it does not count any more.
            first.cancel()
            self.given_up += 1
        place = trio.CancelScope()
        self._silent[place] = None
        return place

    @contextlib.contextmanager
    def held(self, place: trio.CancelScope) -> Iterator[None]:
        """Run the caller's session in its place, which is free again at the end."""
        try:
            with place:
                yield
        finally:
            self.leave(place)

    def know(self, place: trio.CancelScope) -> bool:
        """The caller has said who it is, and may stay; False if it has had to make room."""
        if place in self._silent:
            del self._silent[place]
            self._known.add(place)
        return place in self._known

    def leave(self, place: trio.CancelScope) -> None:
        """The caller is gone."""
        self._silent.pop(place, None)
        self._known.discard(place)
