"""Everything here is run with the core in Python and with the compiled one."""

import os
from collections.abc import Iterator

import pytest

from edged.wire.rtmp import reader


@pytest.fixture(scope="module", params=["python", "compiled"], autouse=True)
def core(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which chunk reader the sessions of these tests have; a machine of CI has both."""
    compiled = request.param == "compiled"
    if compiled and not reader.HAS_FAST:
        assert not os.environ.get("CI"), "CI compiles the core"
        pytest.skip("the core was not compiled: pip install -e . with gcc and python3-dev")
    reader.use_compiled(compiled)
    yield str(request.param)
    reader.use_compiled(True)
