"""Whose key it is: asked of the keys known here, and then of who else may know it."""

from collections.abc import Callable

from edged.api.key_callback import AskKey
from edged.errors import PublishRefusedError
from edged.ingest.plugin import PublishRequest
from edged.media.stream import Grant
from edged.policy.attempts import Attempts
from edged.policy.key_callback import KeyQuestion
from edged.policy.stream_keys import StreamKeys


class Entrance:
    """The keys of one PoP. A wrong one counts, by where it comes from, wherever it is shown."""

    def __init__(
        self,
        keys: StreamKeys,
        ask_key: AskKey | None,
        *,
        now: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._keys, self._ask_key = keys, ask_key
        self._now, self._unix_now = now, unix_now
        self._attempts = Attempts()

    def use_keys(self, keys: StreamKeys) -> None:
        """Ask other keys from now on."""
        self._keys = keys

    @property
    def asks_others(self) -> bool:
        """Whether a key that is not known here may be good all the same."""
        return self._ask_key is not None

    async def admit(self, request: PublishRequest) -> Grant:
        """What a publisher's key grants; raises `PublishRefusedError`."""
        return await self._find(
            lambda: self._keys.check(
                request.app, request.stream_key, self._unix_now(), request.protocol
            ),
            KeyQuestion(
                app=request.app,
                stream_key=request.stream_key,
                protocol=request.protocol,
                peer=request.peer,
                encoder=request.encoder,
            ),
        )

    async def identify(self, key: str, peer: str, protocol: str | None = None) -> Grant:
        """Whose key it is, shown elsewhere than at an ingest; raises `PublishRefusedError`.

        Without a protocol a service that is asked is told "api".
        """
        return await self._find(
            lambda: self._keys.identify(key, self._unix_now(), protocol),
            KeyQuestion(app="", stream_key=key, protocol=protocol or "api", peer=peer),
        )

    async def _find(self, find_here: Callable[[], Grant], question: KeyQuestion) -> Grant:
        self._check_attempts(question.peer)
        try:
            try:
                return find_here()  # At once: no service has to answer for it.
            except PublishRefusedError as error:
                if self._ask_key is None or error.code != "unknown_key":
                    raise
            return await self._ask_key(question, lambda: self._check_attempts(question.peer))
        except PublishRefusedError as error:
            self._attempts.note_refused(question.peer, error.code, self._now())
            raise

    def _check_attempts(self, peer: str) -> None:
        self._attempts.check(peer, self._now())
