"""The contract between edged and an ingest plug-in, the same for the built-in ones and for yours.

A plug-in is an `IngestPlugin` found through the entry-point group `edged.ingest`. Its `serve` gets
its own config Struct (table `[ingest.NAME]`) and a `Door`: through it publishers enter, and what
the network wants of them comes back through their `PublisherControl`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import trio
from msgspec import Struct

from edged.ingest.publication import Publication
from edged.runtime.pump import Pump

__all__ = [
    "DRAINING",
    "PUBLISH_TIMEOUT_S",
    "Door",
    "HttpAnswer",
    "HttpRequest",
    "HttpRoute",
    "IngestPlugin",
    "PrepareReload",
    "Publication",
    "PublishRequest",
    "PublisherControl",
    "ServePlugin",
]

PUBLISH_TIMEOUT_S = 10.0  # From the request to the grant; encoders give up at about that time.
DRAINING = "drain: this PoP is draining; connect again"  # What a drained publisher is told.

# Checks a table `[ingest.NAME]` and raises ConfigError if it cannot be taken into use; returns what
# takes it into use, which is called at once if the rest of the file is in order too.
PrepareReload = Callable[[Struct], Callable[[], None]]


class PublishRequest(Struct, frozen=True, kw_only=True):
    """What a publisher asks for. `stream_key` is a secret: it goes into no log and no message."""

    protocol: str  # "rtmp", "rtmps", ...
    app: str
    stream_key: str
    peer: str
    encoder: str = ""

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"PublishRequest({', '.join(fields)})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The fields as rich's tracebacks show them."""
        fields = super().__rich_repr__()
        return [(name, "<hidden>" if name == "stream_key" else value) for name, value in fields]


class PublisherControl(Protocol):
    """What the network wants of a publisher; a plug-in does what its protocol can."""

    def stop(self, code: str, reason: str) -> None:
        """End the session and tell the broadcaster why (takeover, kick)."""

    def drain(self, reconnect_url: str | None) -> None:
        """This PoP wants to be rid of the publisher, who shall publish elsewhere.

        A protocol that can ask a broadcaster to reconnect does so and goes on taking what comes
        until it has left; `reconnect_url` says where to, None by the address that it has. All
        others end the session, telling why: encoders connect again by themselves. Who is still
        there at the drain's deadline is stopped.
        """
        del reconnect_url
        self.stop("Rejected", DRAINING)

    def want_key_frame(self) -> None:
        """A reader needs a random access point soon; a protocol without the means ignores it."""

    def cap_bitrate(self, bits_per_second: int) -> None:
        """Ask the encoder not to exceed this rate, where the protocol can say so."""


class HttpRequest(Struct, frozen=True, kw_only=True):
    """A request to one of a plug-in's routes; it came whole, bounded by `[api]`.

    Its fields may hold a stream key: it goes into no log.
    """

    method: str
    path: str
    params: Mapping[str, str]  # What stands for `{name}` in the route's path.
    query: str  # Not decoded.
    fields: Sequence[tuple[bytes, bytes]]  # Names in any case.
    body: bytes
    peer: str  # "HOST:PORT" of the client, behind the proxies of `[api]`.
    secure: bool

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.path} from {self.peer})"


class HttpAnswer(Struct, frozen=True, kw_only=True):
    """The answer to it."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    fields: Sequence[tuple[str, str]] = ()


class HttpRoute(Struct, frozen=True, kw_only=True):
    """An HTTP handler that a plug-in adds to the API (WHIP's signalling).

    `handle` may raise `PublishRefusedError`, which becomes a problem with the same code; anything
    else that it raises is a bug of the plug-in's, and ends that request only.
    """

    name: str  # Unique in the API.
    method: str
    path: str  # Below /api/v1: "/whip/{channel}".
    summary: str
    handle: Callable[[HttpRequest], Awaitable[HttpAnswer]]
    description: str = ""
    content_types: tuple[str, ...] = ()  # Of its requests' bodies, for the document.
    timeout_s: float = PUBLISH_TIMEOUT_S + 2.0


class Door(Protocol):
    """What edged offers a plug-in."""

    pump: Pump

    def add_routes(self, routes: Sequence[HttpRoute]) -> None:
        """Add HTTP handlers to the API; before the plug-in's `serve` has started."""

    async def publish(self, request: PublishRequest, control: PublisherControl) -> Publication:
        """Check the key, place the stream; raises `PublishRefusedError` with code and reason."""

    def on_reload(self, name: str, prepare: PrepareReload) -> None:
        """Have `prepare` called with the table of the plug-in `name` when the file is read again.

        It is called only if no key beside `IngestPlugin.live_keys` has changed.
        """


class ServePlugin(Protocol):
    """A plug-in's main task: listen, and let publishers in through the door."""

    def __call__(
        self, config: Struct, door: Door, *, task_status: trio.TaskStatus[dict[str, str]]
    ) -> Awaitable[None]:
        """Serve until cancelled; starts with its listeners' names and bound addresses."""


class IngestPlugin(Struct, frozen=True, kw_only=True):
    """What the entry point names."""

    name: str
    config_type: type[Struct]  # Decoded from `[ingest.NAME]`; unknown keys are errors.
    serve: ServePlugin
    codecs: tuple[str, ...]  # Of `edged.media.track.Codec`: what it can carry into the network.
    # Keys of its table that can change while it runs, those of tables inside as "tls.key": how they
    # take effect. All others need a restart. With any, `serve` calls `Door.on_reload`.
    live_keys: Mapping[str, str] = {}
