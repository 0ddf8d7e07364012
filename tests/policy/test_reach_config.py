import pytest

from edged.policy.reach_config import ReachConfig


def test_orders_must_not_expire_between_plans() -> None:
    assert ReachConfig(interval_s=5, ttl_s=15)
    with pytest.raises(ValueError, match="ttl_s 14 must be at least three times interval_s 5"):
        ReachConfig(interval_s=5, ttl_s=14)
