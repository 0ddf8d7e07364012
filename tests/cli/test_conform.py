"""`edged conform`: what it prints, and how it ends."""

import json

import pytest

import edged.cli.conform
from edged.errors import PeerLostError
from edged.tools.conform.observe import Observation
from tests.cli.invoke import Answer
from tests.tools.conform.conftest import _seen_once, good, ours

__all__ = ["_seen_once", "good", "ours"]


def seeing(monkeypatch: pytest.MonkeyPatch, seen: Observation) -> None:
    """What was seen already is what is seen."""

    async def observe(*_: object, **__: object) -> Observation:
        return seen

    monkeypatch.setattr(edged.cli.conform, "observe", observe)


def test_a_table_and_its_end(monkeypatch: pytest.MonkeyPatch, good: Observation) -> None:
    seeing(monkeypatch, good)
    answer = Answer("conform", "http://x/master.m3u8")
    assert answer.code == 0, answer.out
    lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines[1:37]] == [str(n) for n in range(1, 37)]
    assert "✕ fail" not in answer.out
    assert "✓ pass" in answer.out
    assert "· not seen" in answer.out
    assert lines[-1].startswith(f"{good.url} (v0.m3u8, a0.m3u8): 3")


def test_what_fails_ends_with_1(monkeypatch: pytest.MonkeyPatch, ours: Observation) -> None:
    ours.broken.append("never answered: [x]")
    seeing(monkeypatch, ours)
    answer = Answer("conform", "http://x/master.m3u8")
    assert answer.code == 1
    assert "31  profile" in answer.out
    assert "not answered: never answered: [x]" in answer.out
    assert "1 fail" in answer.out.splitlines()[-1], answer.out
    answer = Answer("conform", "http://x/master.m3u8", "--json")
    assert answer.code == 1
    report = json.loads(answer.out)
    assert [verdict["number"] for verdict in report["verdicts"]] == list(range(1, 37))


def test_nothing_there_is_an_error() -> None:
    answer = Answer("conform", "http://127.0.0.1:1/master.m3u8")
    assert answer.code != 0
    assert isinstance(answer.error, ExceptionGroup)
    assert answer.error.subgroup(PeerLostError) is not None
    assert Answer("conform", "http://x", "--seconds", "1").code == 2
