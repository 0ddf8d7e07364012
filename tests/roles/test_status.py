"""The status as others read it."""

from typing import get_args

import msgspec

from edged.roles.status import SORTS, ProcessSeen, Sort, Status, TotalsSeen


def test_orders_are_named_once() -> None:
    assert tuple(SORTS) == get_args(Sort) == tuple(SORTS.values())


def test_an_empty_process_goes_through_json() -> None:
    status = Status(
        at=1.0,
        process=ProcessSeen(
            version="0.1.0", pid=1, uptime_s=2.0, cpu_share=0.5, rss_bytes=3, fds=4, fds_max=5
        ),
        totals=TotalsSeen(
            streams=0, viewers=0, in_bps=0, out_bps=0, lag_ms_max=0, warnings=0, warned_streams=0
        ),
        roles=[],
    )
    assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status
