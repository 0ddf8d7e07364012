"""Fixtures of the roles' tests."""

import pytest

from tests.roles.throwing import Faults


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Throws exceptions until the test ends."""
    return Faults(monkeypatch)
