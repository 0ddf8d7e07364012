from edged.wire.h2.head import H2Request, Head
from edged.wire.request import RequestReceived

ASKED = RequestReceived(method="GET", path="/", query="", fields=[], keep_alive=True)


def test_requests_are_equal_by_value() -> None:
    request = H2Request(3, ASKED)
    assert request == H2Request(3, ASKED.for_target("/", ""))
    assert request != H2Request(5, ASKED)
    assert request != H2Request(3, ASKED.for_target("/a", ""))
    assert request != "a request"
    assert repr(request).startswith("H2Request(3, RequestReceived(GET")


def test_a_head_tells_what_is_not_of_the_request() -> None:
    head = Head(ASKED, 7, b"u=1")
    assert (head.request, head.content_length, head.priority) == (ASKED, 7, b"u=1")
