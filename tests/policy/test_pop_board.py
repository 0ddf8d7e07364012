"""The other PoPs: told whole, then by changes; not believed when IRS is silent."""

from edged.media.routing import IngestOffer, PopRow, PopState
from edged.policy.pop_board import HEARD_S_MAX, PopBoard


def row(pop: str, shard: int = 1, load: float = 0.0) -> PopRow:
    return PopRow(pop, shard, IngestOffer((f"rtmp://{pop}/live",), PopState.UP, load))


def test_changes_add_up_and_a_whole_list_begins_anew() -> None:
    board = PopBoard("ams1", 1)
    assert board.others(0.0) == []
    board.apply(whole=True, changed=[row("ams1"), row("ams1", 2), row("fra1")], removed=[], now=0.0)
    assert board.others(0.0) == [row("ams1", 2), row("fra1")]
    board.apply(whole=False, changed=[row("fra1", load=0.5)], removed=[("ams1", 2)], now=1.0)
    assert board.others(1.0) == [row("fra1", load=0.5)]
    board.apply(whole=False, changed=[], removed=[("nobody", 1)], now=2.0)
    assert board.others(2.0) == [row("fra1", load=0.5)]
    board.apply(whole=True, changed=[row("lon1")], removed=[], now=3.0)
    assert board.others(3.0) == [row("lon1")]


def test_nothing_is_believed_when_irs_has_been_silent_until_it_speaks() -> None:
    board = PopBoard("ams1", 1)
    board.apply(whole=True, changed=[row("fra1")], removed=[], now=5.0)
    assert board.others(5.0 + HEARD_S_MAX - 0.01) == [row("fra1")]
    assert board.others(5.0 + HEARD_S_MAX) == []
    board.apply(whole=False, changed=[], removed=[], now=20.0)
    assert board.others(20.0) == [row("fra1")]
