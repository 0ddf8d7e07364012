"""A stream of ours as it was seen once, for what the checks say of it and of its misdeeds."""

import copy
import tempfile
from pathlib import Path

import pytest
import trio

from edged.tools.conform.client import Link
from edged.tools.conform.items_media import in_time
from edged.tools.conform.observe import Observation
from edged.tools.conform.probe import observe
from tests.roles.throwing import healthy_network

WATCHED_S = 6.0
RUNS_MAX = 3
GOOD_LINK = Link(tls="TLSv1.3", alpn="h2", timestamps=True, ecn=True, rtt_s=0.01)


async def watch_ours(folder: Path) -> Observation:
    async with healthy_network(folder) as setting:
        setting.ends_here = True  # How its own viewer fares says nothing of what is judged here.
        url = f"http://{setting.pop_address('http')}/live/alice/master.m3u8"
        return await observe(url, WATCHED_S)


@pytest.fixture(scope="session")
def _seen_once() -> Observation:
    for _ in range(RUNS_MAX):
        with tempfile.TemporaryDirectory() as name:
            seen = trio.run(watch_ours, Path(name))
        if not in_time(seen):  # Else of the machine: whether edged is in time asks `tests/e2e`.
            break
    return seen


@pytest.fixture
def ours(_seen_once: Observation) -> Observation:
    """As it was, to be changed at will."""
    return copy.deepcopy(_seen_once)


@pytest.fixture
def good(ours: Observation) -> Observation:
    """The same as if HTTP/2 and TLS 1.3 had been spoken: nothing is wrong with it."""
    ours.link = GOOD_LINK
    return ours
