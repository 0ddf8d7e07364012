"""What one session of a PoP has to do with what it has granted."""

import pytest

from edged.errors import RemoteProtocolError
from edged.irs.gate import Gate
from edged.media.epochs import EPOCH_AHEAD_S_MAX, EpochAsk, IrsMemo
from edged.policy.epoch_grants import EpochGrants

NOW_UNIX = 1_700_000_000.0
MOST = int(NOW_UNIX + EPOCH_AHEAD_S_MAX)


def test_it_grants_for_its_session_and_believes_that_alone() -> None:
    grants = EpochGrants()
    first, second = (Gate(grants, f"irs{at}:1940", lambda: NOW_UNIX) for at in (1, 2))
    assert first.answer(EpochAsk(irs="a", number=1, kind="want", epoch=7), 0.0).granted
    refused = second.answer(EpochAsk(irs="b", number=1, kind="want", epoch=8), 0.0)
    assert (refused.granted, refused.holder) == (False, "irs1:1940")
    assert first.why_not(0.0, 7) == ""
    assert "irs1:1940 has it" in second.why_not(0.0)
    first.keep(IrsMemo(epoch=7, revision=1), 0.0)
    shown = second.answer(EpochAsk(irs="b", number=2, kind="look", epoch=8), 0.0)
    assert shown.memo == IrsMemo(epoch=7, revision=1)


def test_an_epoch_that_is_a_fault_ends_the_session() -> None:
    gate = Gate(EpochGrants(), "irs1:1940", lambda: NOW_UNIX)
    for epoch, wrong in ((MOST, False), (MOST + 1, True)):
        for use in (
            lambda epoch=epoch: gate.answer(
                EpochAsk(irs="a", number=1, kind="look", epoch=epoch), 0.0
            ),
            lambda epoch=epoch: gate.why_not(0.0, epoch),
            lambda epoch=epoch: gate.keep(IrsMemo(epoch=epoch), 0.0),
        ):
            if wrong:
                with pytest.raises(RemoteProtocolError, match="of irs1:1940 lies years ahead"):
                    use()
            else:
                use()
