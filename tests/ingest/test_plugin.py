import rich.pretty

from edged.ingest.plugin import HttpRequest, IngestPlugin, PublishRequest
from edged.ingest.rtmp import RtmpConfig, plugin


def test_the_stream_key_is_in_no_repr() -> None:
    request = PublishRequest(
        protocol="rtmp", app="live", stream_key="secret", peer="192.0.2.1:5", encoder="OBS"
    )
    assert repr(request) == (
        "PublishRequest(protocol='rtmp', app='live', stream_key='<hidden>', peer='192.0.2.1:5', "
        "encoder='OBS')"
    )
    assert "secret" not in f"{request} {[request]} {rich.pretty.pretty_repr(request)}"


def test_the_built_in_plug_in_enters_by_the_same_door() -> None:
    assert isinstance(plugin, IngestPlugin)
    assert plugin.name == "rtmp"
    assert plugin.config_type is RtmpConfig
    assert set(plugin.codecs) == {"h264", "h265", "av1", "vp9", "aac", "opus"}


def test_no_secret_of_a_request_to_a_route_is_in_its_repr() -> None:
    request = HttpRequest(
        method="POST",
        path="/api/v1/whip/alice",
        params={"channel": "alice"},
        query="",
        fields=[(b"Authorization", b"Bearer secret")],
        body=b"secret",
        peer="[192.0.2.1]:0",
        secure=True,
    )
    assert repr(request) == "HttpRequest(POST /api/v1/whip/alice from [192.0.2.1]:0)"
