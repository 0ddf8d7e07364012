"""A peer's session at IRS: what of it is another's when an epoch begins, and what was pushed."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import trio
from trio.testing import memory_stream_pair

from edged.irs.peer import Peer
from edged.irs.pops import PopsTeller
from edged.policy.planner import PopLeases
from edged.wire.table import PopHello, encode_frame

if TYPE_CHECKING:
    from edged.irs.service import IrsService


async def test_what_a_pop_was_told_counts_no_more_when_an_epoch_begins() -> None:
    service = cast("IrsService", SimpleNamespace(epoch=3, entropy=bytes))
    peer = Peer(service, memory_stream_pair()[0], "x", lambda: True)
    assert peer.pushes() == {}
    peer.begin_epoch()
    assert peer.teller is None, "it does not want to hear of others"
    told = peer.teller = PopsTeller()
    peer.offered = (3, PopLeases(rows=(), kept={}))
    peer.begin_epoch()
    assert peer.offered is None
    assert peer.teller is not told
    peer.link.receive_data(encode_frame(PopHello(pop="lhr")), trio.current_time())
    peer.link.start_pushing(None)
    assert peer.pushes() == {"snapshot": 0, "delta": 0}
