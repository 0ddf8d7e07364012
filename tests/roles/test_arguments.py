import pytest

from edged.errors import EdgedError
from edged.roles.arguments import read_seconds


def test_seconds_are_read_within_their_bounds() -> None:
    assert read_seconds({}, "block_s", 5.0, most=60.0) == 5.0
    assert read_seconds({"block_s": "60"}, "block_s", 5.0, most=60.0) == 60.0
    for wrong in ("0", "60.1", "-1", "nan", "inf", "soon", ""):
        with pytest.raises(EdgedError, match=r"block_s .* above 0 and up to 60"):
            read_seconds({"block_s": wrong}, "block_s", 5.0, most=60.0)
