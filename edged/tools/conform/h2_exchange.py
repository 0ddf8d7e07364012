"""HTTP/2 as a client of one request at a time speaks it, by the `h2` library."""

from collections.abc import Sequence
from urllib.parse import urlsplit

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError

from edged.errors import RemoteProtocolError
from edged.tools.conform.answer import Answer, Incoming

RECEIVE_BYTES = 256 * 1024
WINDOW_BYTES = 16 * 2**20  # So that no part waits for us, which item 23 would take for dripping.
STREAM_ID_MAX = 2**30  # Far below the last; the connection is left then.


class H2Exchange:
    """A connection on which HTTP/2 was agreed."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._begun = self._heard = False
        self._closing = False  # GOAWAY has come.

    async def exchange(
        self, url: str, target: str, fields: Sequence[tuple[str, str]]
    ) -> tuple[Answer, bool]:
        """One request and its answer, and whether the connection can take another.

        Raises `RemoteProtocolError`.
        """
        try:
            return await self._exchange(url, target, fields)
        except (ProtocolError, UnicodeDecodeError) as error:
            raise RemoteProtocolError(f"{url}: HTTP/2: {error}") from None

    async def _exchange(
        self, url: str, target: str, fields: Sequence[tuple[str, str]]
    ) -> tuple[Answer, bool]:
        if not self._begun:
            self._begun = True
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(WINDOW_BYTES)
        number = self._h2.get_next_available_stream_id()
        parts = urlsplit(url)
        head = [
            (":method", "GET"),
            (":scheme", parts.scheme),
            (":authority", parts.netloc),
            (":path", target),
        ]
        incoming = Incoming(url, trio.current_time())
        self._h2.send_headers(number, [*head, *fields], end_stream=True)
        self._h2.increment_flow_control_window(WINDOW_BYTES, number)
        while True:
            await self._stream.send_all(self._h2.data_to_send())
            data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
            if not data:
                raise RemoteProtocolError(f"{url}: the server closed without an answer")
            if not self._heard and data.startswith(b"HTTP/1."):  # Else a frame of 5 MB to come.
                raise RemoteProtocolError(f"{url}: HTTP/2: the answer is {data[:20]!r}")
            self._heard = True
            events = self._h2.receive_data(data)
            # All of them, as the one behind the end may be a GOAWAY.
            ended = [self._take(event, number, incoming, url) for event in events]
            if any(ended):
                await self._stream.send_all(self._h2.data_to_send())
                return incoming.end("HTTP/2"), not self._closing and number < STREAM_ID_MAX

    def _take(self, event: Event, number: int, incoming: Incoming, url: str) -> bool:
        """An event; whether the answer ends with it."""
        if isinstance(event, ConnectionTerminated):
            self._closing = True
            if (event.last_stream_id or 0) < number:
                raise RemoteProtocolError(f"{url}: HTTP/2: GOAWAY, {_named(event.error_code)}")
            return False
        if isinstance(event, DataReceived) and event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if getattr(event, "stream_id", None) != number:
            return False
        if isinstance(event, ResponseReceived):
            named = [(str(name), str(value)) for name, value in event.headers]
            fields = [(name.lower(), value) for name, value in named if name != ":status"]
            incoming.begin(int(dict(named)[":status"]), fields, trio.current_time())
        elif isinstance(event, DataReceived):
            incoming.add(event.data, trio.current_time())
        elif isinstance(event, StreamReset):
            raise RemoteProtocolError(f"{url}: HTTP/2: RST_STREAM, {_named(event.error_code)}")
        return isinstance(event, StreamEnded)


def _named(code: object) -> object:
    """An error code, by its name if it has one."""
    return getattr(code, "name", code)
