"""Response blocks: made once, read by anyone, on any connection."""

import hpack
import pytest

from edged.wire.h2.responses import date_block, make_block
from edged.wire.prepared import date_stamp, prepare


def test_a_response_is_what_anyone_reads() -> None:
    response = prepare(
        200,
        [b"ab", b"c"],
        content_type="text/plain",
        cache_control="no-store",
        fields=[("Access-Control-Allow-Origin", "*")],
    )
    assert (response.status, response.size, response.body) == (200, 3, (b"ab", b"c"))
    stamp = date_block(date_stamp(784111777))
    decoder = hpack.Decoder()
    for _ in range(2):
        fields = decoder.decode(response.block(stamp))
        assert [(str(name), str(value)) for name, value in fields] == [
            (":status", "200"),
            ("content-type", "text/plain"),
            ("content-length", "3"),
            ("cache-control", "no-store"),
            ("access-control-allow-origin", "*"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ]
    assert not decoder.header_table.dynamic_entries


def test_it_is_stamped_once_a_second() -> None:
    response = prepare(404, [], content_type="a", cache_control="b")
    first, second = date_block(date_stamp(0)), date_block(date_stamp(1))
    assert response.block(first) is response.block(first)
    assert response.block(second) != response.block(first)


def test_fields_are_ours() -> None:
    for value in ("a\r\nb", "é"):
        with pytest.raises(AssertionError, match="ours"):
            make_block(200, [("x", value)])
    with pytest.raises(AssertionError):
        date_block(b"Expires: never")
