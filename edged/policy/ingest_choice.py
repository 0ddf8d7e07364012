"""Choosing the PoP where a broadcaster should publish.

The PoP that was asked is the nearest, as far as anybody knows: the broadcaster's resolver chose it.
So it is the answer, unless it can't take the stream or is nearly full; then the least loaded of
those that can.
"""

from collections.abc import Sequence

from msgspec import Struct

from edged.media.routing import IngestOffer, PopRow, PopState

LOAD_MAX = 0.9  # Above it the asked PoP is kept for those who do not ask.


class IngestPlace(Struct, frozen=True):
    """One PoP that would take the stream."""

    pop: str
    url: str
    load: float


class IngestChoice(Struct, frozen=True):
    """Where to publish, and why there; `alternatives` are the next best, in order."""

    place: IngestPlace
    reason: str
    alternatives: tuple[IngestPlace, ...]


class IngestRefusal(Struct, frozen=True):
    """No PoP takes the stream: why not, by PoP."""

    reasons: dict[str, str]


def choose_ingest(
    own: PopRow,
    others: Sequence[PopRow],
    protocols: Sequence[str],
    *,
    alternatives_max: int = 3,
) -> IngestChoice | IngestRefusal:
    """Choose among `own`, the PoP that was asked, and the others.

    `protocols`: those that the stream key allows and that the broadcaster can use; of a PoP's URLs
    the first of these counts. One PoP's shards share its URLs; the least loaded speaks for them.
    """
    reasons: dict[str, str] = {}
    found: dict[str, IngestPlace] = {}
    elsewhere = [row for row in others if row.pop != own.pop]
    for row in sorted((own, *elsewhere), key=lambda known: known.ingest.load):
        url = _first_url(row.ingest, protocols)
        why = _why_not(row.ingest.state)
        if not why and not url:
            why = f"has no public URL for {' or '.join(protocols) or 'any protocol'}"
        if why:
            reasons.setdefault(row.pop, why)
        elif row.pop not in found:
            found[row.pop] = IngestPlace(row.pop, url, row.ingest.load)
    places = sorted(found.values(), key=lambda place: (place.load, place.pop))
    asked = found.get(own.pop)
    if not places:
        return IngestRefusal(reasons)
    if asked is not None and (asked.load < LOAD_MAX or places[0] is asked):
        chosen, reason = asked, "the PoP that you asked takes it"
    else:
        chosen = places[0]
        why = reasons.get(own.pop) or f"is {own.ingest.load:.0%} full"
        reason = f"the least loaded that takes it; the PoP that you asked: {why}"
    rest = tuple(place for place in places if place is not chosen)
    return IngestChoice(chosen, reason, rest[:alternatives_max])


def _first_url(offer: IngestOffer, protocols: Sequence[str]) -> str:
    for protocol in protocols:
        for url in offer.urls:
            if url.partition("://")[0] == protocol:
                return url
    return ""


def _why_not(state: str) -> str:
    """Why a PoP in that state takes nothing; "" when it does."""
    if state == PopState.UP:
        return ""
    return _REASONS.get(state, "is not ready")  # A newer peer may know more states.


_REASONS: dict[str, str] = {
    PopState.DRAIN: "is being drained",
    PopState.FULL: "is overloaded",
    PopState.NO_ROUTE: "has no way to an origin that takes the stream",
}
