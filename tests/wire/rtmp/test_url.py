import pytest

from edged.errors import ConfigError
from edged.wire.rtmp.url import parse_url, resolve


def test_parts() -> None:
    url = parse_url("rtmp://edge.example/live/secret?token=1")
    assert (url.scheme, url.host, url.port) == ("rtmp", "edge.example", 1935)
    assert (url.app, url.stream_key) == ("live", "secret?token=1")
    assert url.tc_url == "rtmp://edge.example/live"


def test_port_address_and_deep_app() -> None:
    url = parse_url("rtmps://[::1]:4430/live/eu/key")
    assert (url.host, url.port, url.app, url.stream_key) == ("::1", 4430, "live/eu", "key")
    assert url.tc_url == "rtmps://[::1]:4430/live/eu"
    assert parse_url("rtmps://h/a/k").port == 443


def test_the_key_is_hidden() -> None:
    assert "secret" not in repr(parse_url("rtmp://h/live/secret"))


@pytest.mark.parametrize(
    "text",
    ["http://h/live/secret", "rtmp:///live/secret", "rtmp://h/secret", "rtmp://h:x/a/secret"],
)
def test_what_is_no_rtmp_url(text: str) -> None:
    with pytest.raises(ConfigError, match="not an rtmp url") as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("tc_url", "place"),
    [
        ("", "rtmps://h:4430/live"),
        ("rtmp://other/eu/live", "rtmp://other/eu/live"),
        ("rtmp://[::1]:1936/live/", "rtmp://[::1]:1936/live"),
        ("//192.0.2.1/app", "rtmps://192.0.2.1/app"),
        ("/app", "rtmps://h:4430/app"),
    ],
)
def test_where_a_reconnect_request_leads(tc_url: str, place: str) -> None:
    """The examples of E-RTMP v2, "Reconnect Request"; the key goes along."""
    found = resolve(parse_url("rtmps://h:4430/live/key?token=1"), tc_url)
    assert (found.tc_url, found.stream_key) == (place, "key?token=1")


@pytest.mark.parametrize("tc_url", ["http://h/live", "rtmp://h", "nonsense", "rtmp://h:x/live"])
def test_a_reconnect_request_that_leads_nowhere(tc_url: str) -> None:
    with pytest.raises(ConfigError, match="not an rtmp url"):
        resolve(parse_url("rtmp://h/live/key"), tc_url)
