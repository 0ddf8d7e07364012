"""Everything here is run with the core in Python and with the compiled one."""

from collections.abc import Iterator

import pytest

from edged.wire.rtmp import reader
from tests.conftest import require_found


@pytest.fixture(scope="module", params=["python", "compiled"], autouse=True)
def core(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which chunk reader the sessions of these tests have; a machine of CI has both."""
    compiled = request.param == "compiled"
    if compiled:
        require_found("a compiled RTMP core (gcc, python3-dev)", found=reader.HAS_FAST)
    reader.use_compiled(compiled)
    yield str(request.param)
    reader.use_compiled(True)
