"""The table `[api]`."""

import hashlib

import pytest

from edged.api.config import ApiConfig, find_problems


def test_the_defaults_can_be_used() -> None:
    assert find_problems(ApiConfig()) == []


def test_every_mistake_is_named_with_its_place() -> None:
    config = ApiConfig(
        trusted_proxies=("10.0.0.0/8", "proxy.example", "10.0.0.1/8"), admin_token_sha256="x" * 64
    )
    problems = find_problems(config)
    assert problems[0].startswith("trusted_proxies[1]: 'proxy.example'")
    assert problems[1].startswith("trusted_proxies[2]: 10.0.0.1/8 has host bits set")
    assert problems[2] == "admin_token_sha256: must be 64 hex digits"


@pytest.mark.parametrize("token", ["", hashlib.sha256(b"token").hexdigest(), "A" * 64])
def test_tokens_that_can_be(token: str) -> None:
    assert find_problems(ApiConfig(admin_token_sha256=token)) == []
