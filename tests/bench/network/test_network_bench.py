"""The bench of the network page's history, on a network of a few."""

import pytest

from tests.bench.network.__main__ import measure


async def test_it_tells_what_an_hour_takes(capsys: pytest.CaptureFixture[str]) -> None:
    await measure(3, 2, 3, samples=130)
    told = capsys.readouterr().out
    assert told.startswith("3 PoPs, 2 origins, 3 links: a sample ")
    assert "MiB hold 11 min" in told
    assert "to look anew 3 answers" in told
