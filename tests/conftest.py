"""What every test gets."""

import os
import shutil
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logs_as_shipped() -> Iterator[None]:
    yield
    structlog.reset_defaults()


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
