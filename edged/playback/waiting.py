"""What a service sees of a request that it is to answer, whatever it came over."""

from abc import ABC, abstractmethod

from edged.runtime.connection import Connection
from edged.wire.prepared import PreparedResponse


class Exchange(ABC):
    """One request, or, over HTTP/1.1, the one of a connection that is in work."""

    __slots__ = ("connection", "polled", "retrying")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.polled: int | None = None  # The playback service's note (`ViewerCount.note_poll`).
        self.retrying = False  # The service is asked again: it has counted the request.

    @abstractmethod
    def wait(self, group: "Waiters", until: float, expired: PreparedResponse) -> None:
        """Wait in `group` for an answer, which is `expired` when that time has come."""

    @abstractmethod
    def answer(self, response: PreparedResponse, now: float) -> None:
        """Answer a request that waited; its group, of which a bug ends only this one, let go."""

    def answer_ahead(self, response: PreparedResponse) -> bool:
        """Take that for the answer to a request that waited: who calls sends it, then `settle`s.

        For one of thousands, of whom the last is not to wait for the others' bookkeeping. False,
        nothing changed, where it is not as simple as that: then it is for `answer`.
        """
        del response
        return False

    @abstractmethod
    def stamped(self, response: PreparedResponse, now: float) -> tuple[bytes, ...]:
        """The bytes that who calls is to send, with the Date of now."""

    def settle(self, now: float) -> None:  # noqa: B027 - of most there is nothing to note
        """Note the answer that was sent ahead, if none of the connection's events has done so."""

    @abstractmethod
    def retry(self, now: float) -> None:
        """Ask the service again: what the request waited for has changed; it may wait again."""


Waiters = dict[Exchange, None]  # In order of arrival; leaving is O(1).
