import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.backbone import directory as module
from edged.backbone.directory import Directory, DirectoryRecord, OriginDirectory
from edged.media.stream import StreamId
from edged.policy import descriptions
from edged.wire.backbone.frames import MESSAGE_BYTES_MAX
from edged.wire.backbone.messages import DirectoryEntry, make_message_frame


def entry(
    channel: str, publication: int = 7, home_epoch: int = 1, title: str = "t"
) -> DirectoryEntry:
    return DirectoryEntry(stream_id=StreamId(channel, publication, home_epoch), title=title)


def sync(origin: OriginDirectory, pop: Directory) -> None:
    for delta in origin.take_deltas():
        assert pop.apply(delta)


def entries(pop: Directory) -> list[DirectoryEntry]:
    return [record.entry for record in pop]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcd"), st.integers(1, 9))))
@settings(max_examples=50)
def test_deltas_keep_a_pop_in_step(changes: list[tuple[bool, str, int]]) -> None:
    origin, pop, late = OriginDirectory("ams", 1), Directory(), Directory()
    for delta in origin.whole():
        assert pop.apply(delta)
    for index, (add, channel, publication) in enumerate(changes):
        if add:
            origin.set(entry(channel, publication))
        else:
            origin.remove(channel)
        if index % 3 == 0:
            sync(origin, pop)
    sync(origin, pop)
    assert origin.take_deltas() == []
    for delta in origin.whole():
        assert late.apply(delta)
    assert entries(pop) == entries(late)
    held = [known._origins["ams"].version for known in (pop, late)]
    assert held == [origin.version, origin.version]
    for channel in "abcd":
        record = pop.lookup(channel)
        assert (record and record.entry) == origin.get(channel)


def test_a_delta_that_does_not_follow_asks_for_the_whole_list() -> None:
    origin, pop = OriginDirectory("ams", 1), Directory()
    origin.set(entry("a"))
    (delta,) = origin.take_deltas()
    assert not pop.apply(delta)
    assert pop._origins["ams"].version == 0
    for whole in origin.whole():
        assert pop.apply(whole)
    restarted = OriginDirectory("ams", 2)
    restarted.set(entry("b"))
    for again in restarted.take_deltas():
        assert not pop.apply(again)
    for whole in restarted.whole():
        assert pop.apply(whole)
    assert entries(pop) == [entry("b")]


def test_the_newest_run_of_a_channel_is_found_whoever_has_it() -> None:
    pop = Directory()
    changed: list[str] = []
    pop.watch(changed.append)
    for name, publication, epoch in (("ams", 7, 2), ("lon", 7, 3), ("nyc", 6, 9)):
        origin = OriginDirectory(name, 1)
        origin.set(entry("a", publication, epoch))
        origin.take_deltas()
        for delta in origin.whole():
            pop.apply(delta)
    assert pop.lookup("a") == DirectoryRecord("lon", entry("a", 7, 3))
    assert changed == ["a"] * 3
    pop.forget("lon")
    pop.forget("lon")
    assert pop.lookup("a") == DirectoryRecord("ams", entry("a", 7, 2))
    assert changed == ["a"] * 4
    assert pop.lookup("b") is None


def test_long_lists_go_in_several_messages() -> None:
    origin, pop = OriginDirectory("ams", 1), Directory()
    for delta in origin.whole():
        pop.apply(delta)
    for index in range(3000):
        origin.set(entry(f"channel-{index}", title="x" * 1000))
    deltas = origin.take_deltas()
    assert len(deltas) > 2
    assert all(len(make_message_frame(delta)) < MESSAGE_BYTES_MAX / 4 for delta in deltas)
    assert all(pop.apply(delta) for delta in deltas)
    assert len(list(pop)) == 3000
    for index in range(3000):
        origin.remove(f"channel-{index}")
    origin.remove("unknown")
    sync(origin, pop)
    assert not list(pop)
    assert len(list(origin.whole())) == 1


def test_what_changes_while_a_whole_list_goes_out_follows_it() -> None:
    origin, pop = OriginDirectory("ams", 1), Directory()
    for index in range(3000):
        origin.set(entry(f"channel-{index}", title="x" * 1000))
    origin.take_deltas()
    whole = origin.whole()
    origin.set(entry("channel-2999", publication=8))
    origin.remove("channel-1")
    deltas = origin.take_deltas()
    assert all(pop.apply(delta) for delta in [*whole, *deltas])
    assert entries(pop) == [record for _, record in sorted(origin._entries.items())]


def test_many_removals_go_in_several_messages() -> None:
    origin, pop = OriginDirectory("ams", 1), Directory()
    names = [f"{index:0250}" for index in range(300)]
    for name in names:
        origin.set(entry(name))
    origin.take_deltas()
    for delta in origin.whole():
        pop.apply(delta)
    for name in names:
        origin.remove(name)
    assert len(deltas := origin.take_deltas()) > 1
    assert all(pop.apply(delta) for delta in deltas)
    assert not list(pop)


def test_titles_and_tags_are_bounded_and_nothing_new_is_no_delta() -> None:
    origin = OriginDirectory("ams", 1)
    long = DirectoryEntry(
        stream_id=StreamId("a", 1),
        title="x\n" * 999,
        tags=tuple("y" * 99 for _ in range(99)),
        category="z" * 999,
        labels=tuple("w" * 99 for _ in range(99)),
    )
    origin.set(long)
    kept = origin.get("a")
    assert kept is not None
    assert kept.title == "x" * (descriptions.TITLE_CHARS_MAX // 2)  # No control characters.
    assert len(kept.category) == descriptions.CATEGORY_CHARS_MAX
    assert kept.labels == ("w" * descriptions.LABEL_CHARS_MAX,) * descriptions.LABELS_MAX
    assert len(kept.tags) == module.TAGS_MAX
    assert {len(tag) for tag in kept.tags} == {module.TAG_CHARS_MAX}
    origin.take_deltas()
    origin.set(long)
    assert origin.take_deltas() == []


def test_an_origins_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES_MAX", 100)
    origin, pop = OriginDirectory("ams", 1), Directory()
    for index in range(module.ENTRIES_MAX + 1):
        origin._entries[str(index)] = entry(str(index))
    for delta in origin.whole():
        assert pop.apply(delta)
    held = pop._origins["ams"].entries
    assert len(held) == module.ENTRIES_MAX
    origin.set(entry("5", publication=9))
    sync(origin, pop)
    assert held["5"].stream_id.publication == 9
