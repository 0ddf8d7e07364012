"""What this PoP knows of the others, for those who ask where to publish. IRS tells it."""

import math
from collections.abc import Iterable

from edged.media.routing import PopRow

HEARD_S_MAX = 10.0  # IRS speaks once a second; of a network not heard of for so long nothing holds.


class PopBoard:
    """The other PoPs' shards, as IRS last told."""

    def __init__(self, pop: str, shard: int) -> None:
        self._own = (pop, shard)
        self._rows: dict[tuple[str, int], PopRow] = {}
        self._heard_at = -math.inf

    def apply(
        self,
        *,
        whole: bool,
        changed: Iterable[PopRow],
        removed: Iterable[tuple[str, int]],
        now: float,
    ) -> None:
        """Take what IRS tells; `whole` begins anew."""
        self._heard_at = now
        if whole:
            self._rows = {}
        for key in removed:
            self._rows.pop(key, None)
        self._rows.update({(row.pop, row.shard): row for row in changed})

    def others(self, now: float) -> list[PopRow]:
        """The shards beside this one; none when IRS has fallen silent."""
        if now - self._heard_at >= HEARD_S_MAX:
            return []
        return [row for key, row in sorted(self._rows.items()) if key != self._own]
