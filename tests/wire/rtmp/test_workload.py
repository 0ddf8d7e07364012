import pytest

from edged.errors import RemoteProtocolError
from edged.wire.rtmp.limits import RtmpLimits
from edged.wire.rtmp.workload import BURST_S, Workload

LIMITS = RtmpLimits(
    messages_per_s_max=10,
    early_commands_max=4,
    early_command_bytes_max=100,
    commands_per_s_max=6,
    command_bytes_per_s_max=200,
)


def test_messages_count_in_each_second() -> None:
    work = Workload(LIMITS, now=0.0)
    work.add_messages(10, now=0.9)
    work.add_messages(10, now=1.0)
    with pytest.raises(RemoteProtocolError, match="more than 10 messages within a second"):
        work.add_messages(1, now=1.9)


def test_before_the_grant_commands_count_in_all() -> None:
    work = Workload(LIMITS, now=0.0)
    work.add_commands(2, 50)
    work.add_messages(1, now=5.0)
    work.add_commands(2, 50)
    with pytest.raises(RemoteProtocolError, match="more than 4 commands before publish"):
        work.add_commands(1)
    with pytest.raises(RemoteProtocolError, match="of more than 100 bytes before publish"):
        Workload(LIMITS, now=0.0).add_commands(1, 101)


def test_after_the_grant_they_count_against_a_rate() -> None:
    work = Workload(LIMITS, now=0.0)
    work.add_commands(4, 100)
    work.grant()
    work.add_commands(6 * BURST_S, 200 * BURST_S)
    work.add_messages(1, now=1.0)
    work.add_commands(6, 200)
    with pytest.raises(RemoteProtocolError, match=f"more than {6 * BURST_S} commands in a burst"):
        work.add_commands(1)
    work.add_messages(1, now=2.0 + BURST_S)
    with pytest.raises(RemoteProtocolError, match=f"of more than {200 * BURST_S} bytes in a burst"):
        work.add_commands(1, 200 * BURST_S + 1)


def test_an_encoder_may_catch_up_ten_seconds_of_captions_at_once() -> None:
    work = Workload(RtmpLimits(), now=0.0)
    work.grant()
    for _ in range(10 * 60):
        work.add_commands(1, 300)
