from edged.wire.rtmp import amf0, replies


def test_connect_result_says_what_we_take() -> None:
    properties, information = amf0.decode(amf0.encode(replies.connect_result()))
    assert isinstance(properties, dict)
    assert properties["fmsVer"] == "FMS/3,5,7,7009"
    assert isinstance(information, dict)
    assert information["code"] == "NetConnection.Connect.Success"
    assert information["objectEncoding"] == 0.0
    assert information["fourCcList"] == ["avc1", "hvc1", "av01", "vp09", "mp4a", "Opus"]
    assert information["videoFourCcInfoMap"] == dict.fromkeys(("avc1", "hvc1", "av01", "vp09"), 4.0)
    assert information["audioFourCcInfoMap"] == {"mp4a": 4.0, "Opus": 4.0}
    assert information["capsEx"] == 15.0


def test_status_and_reconnect() -> None:
    assert replies.status("error", "A.B", "why") == [
        None,
        {"level": "error", "code": "A.B", "description": "why"},
    ]
    assert replies.reconnect_request("", "drain")[1] == {
        "level": "status",
        "code": "NetConnection.Connect.ReconnectRequest",
        "description": "drain",
    }
    information = replies.reconnect_request("rtmp://other/live", "drain")[1]
    assert isinstance(information, dict)
    assert information["tcUrl"] == "rtmp://other/live"
