"""The table `[api]`."""

import re
from typing import Annotated

from msgspec import Meta, Struct

from edged.policy.rate_limit import parse_networks

BODY_BYTES_MAX = 64 * 1024  # What the public port takes of any request.


class ApiConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[api]`: the REST API, below /api/ of the playback listeners."""

    enabled: bool = True
    rate_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000  # Of one client.
    body_bytes_max: Annotated[int, Meta(ge=1_024, le=BODY_BYTES_MAX)] = 16_384
    requests_max: Annotated[int, Meta(ge=1, le=10_000)] = 256  # In work at a time.
    request_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    bitrate_bps_max: Annotated[int, Meta(ge=100_000, le=1_000_000_000)] = 30_000_000
    trusted_proxies: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    admin_token_sha256: str = ""


def find_problems(config: ApiConfig) -> list[str]:
    """Say what is wrong with the table beyond its types; empty when it can be used."""
    problems = []
    for index, text in enumerate(config.trusted_proxies):
        try:
            parse_networks([text])
        except ValueError as error:
            problems.append(f"trusted_proxies[{index}]: {error}")
    token = config.admin_token_sha256
    if token and re.fullmatch(r"[0-9a-fA-F]{64}", token) is None:
        problems.append("admin_token_sha256: must be 64 hex digits")
    return problems
