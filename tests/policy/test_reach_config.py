import pytest

from edged.policy.reach_config import ReachConfig


def test_orders_must_not_expire_between_plans() -> None:
    assert ReachConfig(interval_s=5, ttl_s=15)
    with pytest.raises(ValueError, match="ttl_s 14 must be at least three times interval_s 5"):
        ReachConfig(interval_s=5, ttl_s=14)


def test_a_channel_with_all_its_replicas_can_move() -> None:
    assert ReachConfig(replicas_max=12, moves_max=12)
    with pytest.raises(ValueError, match="moves_max 11 must be at least replicas_max 12"):
        ReachConfig(replicas_max=12, moves_max=11)
