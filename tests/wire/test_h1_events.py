from edged.wire.h1_events import RequestReceived


def test_a_field_is_found_in_any_case_and_the_first_counts() -> None:
    fields = [(b"Host", b"edge"), (b"ACCEPT", b"a"), (b"accept", b"b")]
    request = RequestReceived(method="GET", path="/", query="", fields=fields, keep_alive=True)
    assert request.field(b"host") == b"edge"
    assert request.field(b"accept") == b"a"
    assert request.field(b"range") == b""
