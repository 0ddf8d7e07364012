"""Rows of who is live where: how they travel, and which run is the newest."""

import msgspec
import pytest
from msgspec import structs

from edged.media.live import NUMBER_MAX, ROWS_MAX, LiveReport, LiveRow

ROW = LiveRow("alice", 2**62, 3, "fra1", "partner", "srt", 1_700_000_000.5, waits=True)
EXACT = msgspec.msgpack.Decoder(LiveReport)


def report(**more: object) -> LiveReport:
    return structs.replace(LiveReport(ask=1, number=1, changed=(ROW,), count=1), **more)


def test_a_row_comes_as_it_went_and_is_small() -> None:
    data = msgspec.msgpack.encode(report())
    assert EXACT.decode(data) == report()
    assert len(msgspec.msgpack.encode(ROW)) < 50


def test_a_row_of_a_newer_peer_has_more_and_of_an_older_less() -> None:
    fields = msgspec.to_builtins(ROW)
    assert msgspec.convert([*fields, "new"], LiveRow) == ROW
    assert msgspec.convert(fields[:-1], LiveRow) == structs.replace(ROW, waits=False)


def test_the_newest_run_is_of_the_last_publication_or_its_last_home() -> None:
    older = structs.replace(ROW, home_epoch=2)
    assert older.run < ROW.run < structs.replace(older, publication=2**62 + 1, home_epoch=1).run


@pytest.mark.parametrize(
    "wrong",
    [
        {"changed": (ROW,) * (ROWS_MAX + 1)},
        {"removed": ("x",) * (ROWS_MAX + 1)},
        {"removed": ("x" * 257,)},
        {"number": NUMBER_MAX + 1},
        {"count": -1},
        {"changed": (structs.replace(ROW, channel="x" * 257),)},
        {"changed": (structs.replace(ROW, origin="x" * 64),)},
        {"changed": (structs.replace(ROW, protocol="x" * 65),)},
        {"changed": (structs.replace(ROW, class_="vip"),)},
        {"changed": (structs.replace(ROW, since=-1.0),)},
        {"changed": (structs.replace(ROW, publication=2**63),)},
    ],
)
def test_limits(wrong: dict[str, object]) -> None:
    most = report(changed=(ROW,) * ROWS_MAX, removed=("x" * 256,) * ROWS_MAX, number=NUMBER_MAX)
    assert EXACT.decode(msgspec.msgpack.encode(most)) == most
    with pytest.raises(msgspec.ValidationError):
        EXACT.decode(msgspec.msgpack.encode(report(**wrong)))
