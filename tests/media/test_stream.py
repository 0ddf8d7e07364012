import msgspec

from edged.media.stream import Grant, PriorityClass, StreamId


def test_the_newest_run_is_the_greatest() -> None:
    first = StreamId(channel="gabe", publication=7)
    rehomed = StreamId(channel="gabe", publication=7, home_epoch=2)
    assert first.at_next_home == rehomed
    taken_over = StreamId(channel="gabe", publication=8)
    assert sorted([taken_over, rehomed, first]) == [first, rehomed, taken_over]
    assert hash(first) == hash(StreamId(channel="gabe", publication=7, home_epoch=1))


def test_partners_go_first_and_have_a_name() -> None:
    assert [entry.label for entry in sorted(PriorityClass)] == ["partner", "affiliate", "basic"]


def test_a_grant_survives_the_wire_format_of_control_messages() -> None:
    grant = Grant(channel="gabe", priority=PriorityClass.PARTNER, tags=("esports", "de"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(grant), type=Grant) == grant
    assert Grant(channel="gabe").priority is PriorityClass.BASIC
