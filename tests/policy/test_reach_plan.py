"""What a plan remembers of those who have gone."""

from edged.media.reach import AudienceRow
from edged.policy.reach_plan import IDLE_LOOKS, ChannelReach, Memory, Rows, Work

ROW = AudienceRow("x", 5, (), {"v0": 5}, mbps={"v0": 6.0, "v1": 3.0})


def work(memory: Memory | None, *ordered: str) -> Work:
    before = ChannelReach(
        channel="x", origin="fra1", viewers=5, covered=5, replicas=("a/0",), rungs={"a/0": ordered}
    )
    return Work("x", "fra1", 5, Rows([0], [ROW]), before=before, memory=memory)


def test_a_rung_that_was_ordered_stays_for_some_looks() -> None:
    memory, looks = None, []
    for _ in range(IDLE_LOOKS):
        now = work(memory, "v0", "v1", "gone")
        looks.append(now.rungs.names(now.with_idle("a/0", now.rungs.watched[0])))
        memory = Memory([], {}, now.idle_now)
    assert looks == [*(IDLE_LOOKS - 1) * [("v0", "v1")], ("v0",)]
    new = work(None)
    assert new.with_idle("a/0", 1) == 1
    assert new.with_idle("elsewhere/0", 1) == 1


def test_who_had_viewers_has_them_for_some_looks() -> None:
    memory, looks = None, []
    for _ in range(IDLE_LOOKS):
        now = work(memory)
        looks.append(now.has_had_viewers("a/0", is_watched=False))
        memory = Memory([], {}, now.idle_now)
    assert looks == [*(IDLE_LOOKS - 1) * [True], False]
    again = work(memory)
    assert again.has_had_viewers("a/0", is_watched=True)
    assert again.idle_now == {}
