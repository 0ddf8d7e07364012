"""rtmp:// and rtmps:// URLs, as OBS and ffmpeg split them: rtmp://HOST[:PORT]/APP/KEY[?QUERY]."""

from urllib.parse import urlsplit

from msgspec import Struct

from edged.errors import ConfigError

PORTS = {"rtmp": 1935, "rtmps": 443}


class RtmpUrl(Struct, frozen=True, kw_only=True):
    """Where to publish. Its text form hides the key."""

    scheme: str
    host: str
    port: int
    app: str
    stream_key: str  # With its query, as `publish` sends it.

    @property
    def tc_url(self) -> str:
        """The URL without the key, as `connect` sends it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}/{self.app}"

    def __repr__(self) -> str:
        return f"RtmpUrl({self.tc_url!r})"


def resolve(base: RtmpUrl, tc_url: str) -> RtmpUrl:
    """Where a reconnect request's tcUrl sends a publisher: absolute, or relative to where it is.

    E-RTMP v2, "Reconnect Request": "rtmp://HOST/APP", "//HOST/APP", "/APP"; empty: where it is.
    Raises ConfigError.
    """
    if not tc_url:
        return base
    if tc_url.startswith("//"):
        tc_url = f"{base.scheme}:{tc_url}"
    elif tc_url.startswith("/"):
        tc_url = base.tc_url.removesuffix(f"/{base.app}") + tc_url
    return parse_url(f"{tc_url.rstrip('/')}/{base.stream_key}")


def parse_url(text: str) -> RtmpUrl:
    """The last part of the path is the stream key, all before it the app.

    Raises ConfigError, which does not repeat the key.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"not an rtmp url: {error}") from None
    app, _, key = parts.path.strip("/").rpartition("/")
    if parts.scheme not in PORTS or not parts.hostname or not app or not key:
        raise ConfigError("not an rtmp url: rtmp://HOST[:PORT]/APP/KEY is expected")
    return RtmpUrl(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        app=app,
        stream_key=f"{key}?{parts.query}" if parts.query else key,
    )
