"""Every error that edged raises on purpose."""


class EdgedError(Exception):
    """An operating error: expected, and handled by someone."""


class ConfigError(EdgedError):
    """The configuration file cannot be used; the message lists every problem found."""


class RemoteProtocolError(EdgedError):
    """The peer broke the protocol."""


class UnsupportedMediaError(EdgedError):
    """The media is valid, or may be, but of a codec or shape that edged cannot carry."""


class EncoderError(EdgedError):
    """An encoder of video does not open, or fails at a picture."""


class PublishRefusedError(EdgedError):
    """A publisher may not publish; the encoder is told `code`, for programs, and `reason`.

    `detail` is for the log alone: it may name origins and routes. `retry_after_s`: after so long it
    may be let in, where that is known.
    """

    def __init__(
        self, code: str, reason: str, detail: str = "", *, retry_after_s: float | None = None
    ) -> None:
        self.code = code
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s
        super().__init__(f"{code}: {reason}" + (f" ({detail})" if detail else ""))


class RouteUnavailableError(EdgedError):
    """No origin can take this stream now."""

    def __init__(self, channel: str, table_version: int, rejected: dict[str, str]) -> None:
        self.rejected = rejected
        why = "; ".join(f"{origin}: {reason}" for origin, reason in sorted(rejected.items()))
        super().__init__(f"no route for {channel!r}, table v{table_version}: {why or 'no origins'}")


class SolverError(EdgedError):
    """A linear program is too large, or has no optimum that could be found."""


class PeerLostError(EdgedError):
    """A peer closed, fell silent or stalled past its limit."""


class ToolMissingError(EdgedError):
    """A program or file that a command needs is not installed."""
