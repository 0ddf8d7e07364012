from edged.roles.parts_sources import is_relay


def test_a_pop_shard_is_a_relay_and_an_origin_is_none() -> None:
    assert is_relay("ams1/0")
    assert not is_relay("fra1")
