"""Telling PoPs of each other: the whole list once, then what changed, once a second."""

from collections.abc import Mapping

from edged.media.routing import PopRow
from edged.wire.table import PopKey, Pops

Rows = Mapping[tuple[str, int], PopRow]


class PopsTeller:
    """What one session has been told."""

    def __init__(self) -> None:
        self._told: Rows | None = None

    def tell(self, rows: Rows) -> Pops:
        """The message that brings the peer to `rows`; with nothing new it says that we are here."""
        told, self._told = self._told, dict(rows)
        before = told or {}
        changed = tuple(row for key, row in rows.items() if before.get(key) != row)
        removed = tuple(PopKey(*key) for key in before if key not in rows)
        return Pops(whole=told is None, changed=changed, removed=removed)
