"""What every test gets."""

import os
import shutil
import sys
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

from edged import native

# A time limit of single examples would say nothing of edged where others use the machine, too.
hypothesis.settings.register_profile("edged", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("edged")


@pytest.fixture(autouse=True)
def _logs_as_shipped() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def pytest_sessionfinish() -> None:
    """Remove what a worker of pytest-xdist would leave: it ends without what is for an end."""
    sources = sys.modules.get("tests.origin.sources")
    if sources is not None:
        sources.let_go()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what wants Python where the compiled form runs: `tests/run` has it apart."""
    if native.in_use():
        pure = [item for item in items if item.get_closest_marker("pure")]
        config.hook.pytest_deselected(items=pure)
        items[:] = [item for item in items if not item.get_closest_marker("pure")]


def require(*programs: str) -> None:
    """Skip where a program is missing; under CI a missing tool is a failure, not a skip."""
    missing = [program for program in programs if shutil.which(program) is None]
    require_found(", ".join(missing), found=not missing)


def require_found(what: str, *, found: bool) -> None:
    """The same for what is no program: a module of one, a header, a file of the package."""
    if found:
        return
    message = f"not installed: {what}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
