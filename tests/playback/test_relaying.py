"""What another PoP gets first of a channel here."""

from edged.media.parts import Part, SegmentsListed, StreamEnded
from edged.playback.relaying import replay_of
from edged.policy.window import StreamWindow
from tests.playback.fakes import Origin
from tests.playback.test_hls import RUN, Edge, edge

__all__ = ["edge"]


def replay(edge: Edge) -> object:
    return replay_of(edge.service.channels.get("demo"), {}, lists=True, cold=False)


def test_what_is_here_is_what_others_get(edge: Edge) -> None:
    assert replay(edge) is None
    edge.service.hold("demo")
    assert replay(edge) is None
    origin = Origin()
    edge.push(origin.start())
    for _ in range(3):
        edge.push(origin.both())
    made = replay_of(edge.service.channels["demo"], {}, lists=True, cold=False)
    assert made is not None
    stream_id, events = made
    assert stream_id == RUN
    newest = edge.service.channels["demo"].newest
    assert newest is not None
    there = StreamWindow(stream_id, newest.window.limits)
    for event in events:
        there.add(event)
    for name, window in newest.window.renditions.items():
        assert there.renditions[name].last_msn == window.last_msn
        assert there.renditions[name].last_part == window.last_part
    assert sum(isinstance(event, Part) for event in events) == 6


def test_a_run_that_is_over_is_given_to_nobody(edge: Edge) -> None:
    origin = Origin()
    edge.watch(origin)
    assert replay(edge) is not None
    edge.push([StreamEnded(reason="over")])
    assert replay(edge) is None


def test_nor_is_one_that_was_cut_off_here(edge: Edge) -> None:
    edge.watch(Origin())
    edge.unavailable()
    assert replay(edge) is None


def test_what_the_origin_has_is_told_where_less_is_kept_here(edge: Edge) -> None:
    origin = Origin()
    edge.watch(origin)
    names = list(edge.service.channels["demo"].newest.window.renditions)  # type: ignore[union-attr]

    def told(oldest: dict[str, int]) -> set[int]:
        made = replay_of(edge.service.channels["demo"], oldest, lists=True, cold=False)
        assert made is not None
        return {event.oldest_msn for event in made[1] if isinstance(event, SegmentsListed)}

    (here,) = told({})
    assert told(dict.fromkeys(names, here + 50)) == {here}
    assert told(dict.fromkeys(names, -1)) == {-1}, "as if it held one more"
