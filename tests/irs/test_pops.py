"""What PoPs are told of each other."""

from edged.irs.pops import PopsTeller
from edged.media.routing import IngestOffer, PopRow, PopState
from edged.wire.table import PopKey, Pops


def row(pop: str, load: float = 0.0) -> PopRow:
    return PopRow(pop, 1, IngestOffer((f"rtmp://{pop}/live",), PopState.UP, load))


def test_the_whole_list_then_what_changed() -> None:
    teller = PopsTeller()
    ams, fra = row("ams"), row("fra")
    assert teller.tell({("ams", 1): ams}) == Pops(whole=True, changed=(ams,))
    assert teller.tell({("ams", 1): ams}) == Pops(whole=False)
    assert teller.tell({("ams", 1): ams, ("fra", 1): fra}) == Pops(whole=False, changed=(fra,))
    busy = row("fra", 0.5)
    assert teller.tell({("fra", 1): busy}) == Pops(
        whole=False, changed=(busy,), removed=(PopKey("ams", 1),)
    )
    assert teller.tell({}) == Pops(whole=False, removed=(PopKey("fra", 1),))


def test_an_empty_list_is_told_too() -> None:
    assert PopsTeller().tell({}) == Pops(whole=True)
