"""What a PoP has granted, as one of its sessions to IRSs has to do with it."""

from collections.abc import Callable

from edged.media.epochs import EpochAnswer, EpochAsk, IrsMemo, check_plausible
from edged.policy.epoch_grants import EpochGrants


class Gate:
    """One session's side of what a PoP has granted; an epoch that is a fault ends the session."""

    def __init__(self, grants: EpochGrants, session: str, now_unix: Callable[[], float]) -> None:
        self._grants, self._session, self._now_unix = grants, session, now_unix

    def answer(self, ask: EpochAsk, now: float) -> EpochAnswer:
        """Grant what is asked, or not."""
        self._check(ask.epoch)
        return self._grants.answer(ask, self._session, now)

    def why_not(self, now: float, epoch: int | None = None) -> str:
        """Why nothing is taken from it, or no table of this epoch; "" if it is."""
        if epoch is not None:
            self._check(epoch)
        return self._grants.why_not(self._session, now, epoch)

    def keep(self, memo: IrsMemo, now: float) -> None:
        """Keep this for other IRSs."""
        self._check(memo.epoch)
        self._grants.keep(memo, now)

    def _check(self, epoch: int) -> None:
        check_plausible(epoch, self._now_unix(), self._session)
