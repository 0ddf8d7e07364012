import pytest

from edged.errors import RemoteProtocolError
from edged.wire.rtmp.amf0 import AmfValue
from edged.wire.rtmp.connect import (
    FOURCCS_MAX,
    NAME_CHARS_MAX,
    QUERY_ITEMS_MAX,
    ConnectInfo,
    parse_connect,
    parse_stream_name,
)
from edged.wire.rtmp.messages import Command


def connect(**members: AmfValue) -> ConnectInfo:
    return parse_connect(Command("connect", 1.0, [members]))


def test_a_plain_encoder() -> None:
    info = connect(app="live/", tcUrl="rtmp://h/live", flashVer="FMLE/3.0", capsEx=None)
    assert info == ConnectInfo(app="live", tc_url="rtmp://h/live", encoder="FMLE/3.0")


def test_an_enhanced_encoder() -> None:
    info = connect(
        app="live?a=1&b",
        fourCcList=["hvc1", "av01", 3.0],
        videoFourCcInfoMap={"av01": 7.0, "vp09": 7.0},
        audioFourCcInfoMap={"Opus": 7.0},
        capsEx=5.0,
    )
    assert info.app == "live"
    assert info.query == {"a": "1", "b": ""}
    assert info.fourcc_list == ("hvc1", "av01", "vp09", "Opus")
    assert info.caps_ex == 5


@pytest.mark.parametrize("caps", [-1.0, 65536.0, float("nan"), float("inf"), "5"])
def test_capabilities_out_of_bounds_are_none(caps: AmfValue) -> None:
    assert connect(capsEx=caps).caps_ex == 0


def test_no_command_object() -> None:
    assert parse_connect(Command("connect", 1.0, [])) == ConnectInfo()


def test_fourccs_at_the_limit() -> None:
    many: list[AmfValue] = [f"{index:04}" for index in range(FOURCCS_MAX + 1)]
    assert len(connect(fourCcList=many).fourcc_list) == FOURCCS_MAX


def test_names_at_the_limit_and_one_past_it() -> None:
    assert connect(app=NAME_CHARS_MAX * "a").app == NAME_CHARS_MAX * "a"
    with pytest.raises(RemoteProtocolError, match="connect app of 1025 characters"):
        connect(app=(NAME_CHARS_MAX + 1) * "a")
    assert parse_stream_name(NAME_CHARS_MAX * "k") == (NAME_CHARS_MAX * "k", {})
    with pytest.raises(RemoteProtocolError, match="stream name of 1025 characters"):
        parse_stream_name((NAME_CHARS_MAX + 1) * "k")


def test_query_items_at_the_limit_and_one_past_it() -> None:
    items = [f"a{index}=1" for index in range(QUERY_ITEMS_MAX + 1)]
    key, query = parse_stream_name("key?" + "&".join(items[1:]))
    assert key == "key"
    assert len(query) == QUERY_ITEMS_MAX
    with pytest.raises(RemoteProtocolError, match="query of more than 32 items"):
        parse_stream_name("key?" + "&".join(items))
