from edged.wire.fields import find_field

FIELDS = [(b"Host", b"edge"), (b"ACCEPT", b"a"), (b"accept", b"b"), (b"x", b"")]


def test_the_first_counts_in_any_case() -> None:
    assert find_field(FIELDS, b"host") == b"edge"
    assert find_field(FIELDS, b"accept") == b"a"
    assert find_field(FIELDS, b"x") == b""
    assert find_field(FIELDS, b"accepts") == b""
    assert find_field([], b"host") == b""
