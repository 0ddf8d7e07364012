"""What a client says of itself in `connect` (Adobe RTMP 1.0 §7.2.1.1; E-RTMP v2)."""

from urllib.parse import parse_qsl

from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.wire.rtmp.amf0 import AmfValue
from edged.wire.rtmp.messages import Command

NAME_CHARS_MAX = 1024  # Of an app, a stream name with its query, a URL; encoders allow about 256.
QUERY_ITEMS_MAX = 32  # A token, an expiry, a few options.
FOURCCS_MAX = 64  # Thirteen are defined.


class ConnectInfo(Struct, frozen=True, kw_only=True):
    """A decoded connect."""

    app: str = ""
    tc_url: str = ""
    encoder: str = ""  # flashVer, as it calls itself.
    query: dict[str, str] = {}
    fourcc_list: tuple[str, ...] = ()
    caps_ex: int = 0


def parse_connect(command: Command) -> ConnectInfo:
    """Raises RemoteProtocolError for names that are too long."""
    members = command.members(0)
    app, _, query = _text(members, "app").partition("?")
    caps = members.get("capsEx")
    return ConnectInfo(
        app=app.strip("/"),
        tc_url=_text(members, "tcUrl"),
        encoder=_text(members, "flashVer"),
        query=parse_query(query),
        fourcc_list=_fourccs(members),
        caps_ex=int(caps) if isinstance(caps, float) and 0 <= caps < 2**16 else 0,
    )


def parse_stream_name(name: str) -> tuple[str, dict[str, str]]:
    """The stream key and the query of `publish`'s name: "key?token=1"."""
    if len(name) > NAME_CHARS_MAX:
        raise RemoteProtocolError(f"stream name of {len(name)} characters exceeds {NAME_CHARS_MAX}")
    key, _, query = name.partition("?")
    return key, parse_query(query)


def _text(members: dict[str, AmfValue], key: str) -> str:
    value = members.get(key)
    text = value if isinstance(value, str) else ""
    if len(text) > NAME_CHARS_MAX:
        raise RemoteProtocolError(
            f"connect {key} of {len(text)} characters exceeds {NAME_CHARS_MAX}"
        )
    return text


def parse_query(text: str) -> dict[str, str]:
    """The items of a URL's query; of one that comes twice, the last."""
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_ITEMS_MAX))
    except ValueError:
        raise RemoteProtocolError(f"query of more than {QUERY_ITEMS_MAX} items") from None


def _fourccs(members: dict[str, AmfValue]) -> tuple[str, ...]:
    """The codecs that the peer says it can send: by v1's list and v2's maps."""
    found: dict[str, None] = {}
    for key in ("fourCcList", "videoFourCcInfoMap", "audioFourCcInfoMap"):
        value = members.get(key)
        if isinstance(value, list | dict):
            found |= dict.fromkeys(item for item in value if isinstance(item, str))
    return tuple(found)[:FOURCCS_MAX]
