from edged.wire.rtmp.events import PublishRequested


def test_a_request_hides_what_may_be_secret() -> None:
    request = PublishRequested(
        app="live",
        stream_key="secret",
        tc_url="rtmp://h/live?secret",
        query={"token": "secret"},
        encoder="OBS",
        fourcc_list=(),
    )
    assert str(request) == repr(request) == "PublishRequested(app='live', encoder='OBS')"
