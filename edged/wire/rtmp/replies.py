"""What the server says: the values in its command messages, as real encoders expect them."""

from edged.wire.rtmp.amf0 import AmfValue
from edged.wire.rtmp.flv import AUDIO_FOURCCS, VIDEO_FOURCCS

# capsEx (E-RTMP v2, "Enhancing NetConnection connect Command").
CAPS_RECONNECT = 1
CAPS_MULTITRACK = 2
CAPS_MODEX = 4
CAPS_NANO = 8
FOURCC_CAN_FORWARD = 4  # videoFourCcInfoMap: we pass it on; we decode and encode nothing here.

_FMS_VERSION = "FMS/3,5,7,7009"  # Old encoders look for a Flash Media Server they know.
_CAPABILITIES = 31

Values = list[AmfValue]


def info(level: str, code: str, description: str) -> dict[str, AmfValue]:
    """An information object (§7.2.1.1)."""
    return {"level": level, "code": code, "description": description}


def connect_result() -> Values:
    """Arguments of connect's _result, with our Enhanced RTMP capabilities."""
    video: dict[str, AmfValue] = dict.fromkeys(VIDEO_FOURCCS, float(FOURCC_CAN_FORWARD))
    audio: dict[str, AmfValue] = dict.fromkeys(AUDIO_FOURCCS, float(FOURCC_CAN_FORWARD))
    properties: dict[str, AmfValue] = {
        "fmsVer": _FMS_VERSION,
        "capabilities": float(_CAPABILITIES),
        "mode": 1.0,
    }
    information: dict[str, AmfValue] = {
        **info("status", "NetConnection.Connect.Success", "connection succeeded"),
        "objectEncoding": 0.0,  # AMF0, whatever was asked for.
        "fourCcList": [*VIDEO_FOURCCS, *AUDIO_FOURCCS],
        "videoFourCcInfoMap": video,
        "audioFourCcInfoMap": audio,
        "capsEx": float(CAPS_RECONNECT | CAPS_MULTITRACK | CAPS_MODEX | CAPS_NANO),
    }
    return [properties, information]


def status(level: str, code: str, description: str) -> Values:
    """Arguments of onStatus: a null command object, then the information."""
    return [None, info(level, code, description)]


def reconnect_request(tc_url: str, description: str) -> Values:
    """Arguments of the onStatus that asks for a reconnect (E-RTMP v2, "Reconnect Request")."""
    information = info("status", "NetConnection.Connect.ReconnectRequest", description)
    if tc_url:
        information["tcUrl"] = tc_url
    return [None, information]


def unknown_call(name: str) -> Values:
    """Arguments of the _error that answers a command nobody knows."""
    text = f"no such command: {name[:64]}"
    return [None, info("error", "NetConnection.Call.Failed", text)]
