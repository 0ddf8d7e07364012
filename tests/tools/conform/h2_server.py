"""An HTTP/2 server for tests, by the `h2` library."""

from collections.abc import Awaitable, Callable

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from h2.exceptions import ProtocolError

FRAME_BYTES = 10_000
PATH: object = ":path"  # A string, by `header_encoding`.
Respond = Callable[[H2Connection, int, str], None]


def answer_of(body: bytes, status: int = 200) -> Respond:
    """A response in one go; a body beyond a frame in several."""

    def respond(h2: H2Connection, number: int, target: str) -> None:
        h2.send_headers(number, [(":status", str(status)), ("x-target", target)])
        for at in range(0, max(len(body), 1), FRAME_BYTES):
            end = at + FRAME_BYTES >= len(body)
            h2.send_data(number, body[at : at + FRAME_BYTES], end_stream=end)

    return respond


def h2_server(respond: Respond) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    """What serves one connection."""

    async def serve(stream: trio.abc.Stream) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        h2.initiate_connection()
        await stream.send_all(h2.data_to_send())
        while data := await stream.receive_some():
            try:
                events = h2.receive_data(bytes(data))
            except ProtocolError:  # Of frames that come behind our GOAWAY.
                return
            for event in events:
                if isinstance(event, RequestReceived):
                    assert event.headers is not None
                    (target,) = [str(value) for name, value in event.headers if name == PATH]
                    assert event.stream_id is not None
                    respond(h2, event.stream_id, target)
            await stream.send_all(h2.data_to_send())

    return serve
