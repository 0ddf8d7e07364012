import pytest

pytest.register_assert_rewrite(
    "tests.e2e.clip", "tests.e2e.network", "tests.e2e.publisher", "tests.e2e.viewer"
)
