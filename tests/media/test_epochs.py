"""Epochs: which can have been come by, at which time."""

import pytest

from edged.errors import RemoteProtocolError
from edged.media.epochs import EPOCH_AHEAD_S_MAX, EPOCH_MAX, check_plausible, is_plausible

NOW_UNIX = 1_700_000_000
MOST = NOW_UNIX + EPOCH_AHEAD_S_MAX


@pytest.mark.parametrize("epoch", [0, 1, NOW_UNIX, MOST])
def test_what_can_have_been_come_by_is_believed(epoch: int) -> None:
    assert is_plausible(epoch, NOW_UNIX)
    check_plausible(epoch, NOW_UNIX, "lhr/0")


@pytest.mark.parametrize("epoch", [MOST + 1, EPOCH_MAX])
def test_what_lies_years_ahead_is_a_fault_that_says_whose_and_the_limit(epoch: int) -> None:
    assert not is_plausible(epoch, NOW_UNIX)
    with pytest.raises(RemoteProtocolError) as caught:
        check_plausible(epoch, NOW_UNIX, "lhr/0")
    assert str(caught.value) == f"epoch {epoch} of lhr/0 lies years ahead, {MOST} is the most"
