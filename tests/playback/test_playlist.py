"""One rendition's playlist in all its forms, each made once per version."""

import gzip

from edged.media.stream import StreamId
from edged.playback.playlist import POLLED, POLLED_GZIP, Form, Playlist, entity_tag
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from edged.wire.prepared import PreparedResponse, prepare
from tests.playback.fakes import PARTS, Origin

FORMS = [
    Form(blocking=blocking, delta=delta, gzip=gz)
    for blocking in (False, True)
    for delta in (False, True)
    for gz in (False, True)
]


def watched(segments: int) -> tuple[StreamWindow, Origin]:
    window = StreamWindow(StreamId(channel="demo", publication=1), WindowLimits(playlist_s=60))
    origin = Origin()
    events = origin.start()
    for _ in range(segments * PARTS):
        events += origin.both()
    for event in events:
        window.add(event)
    return window, origin


class Maker:
    """Counts what is made."""

    def __init__(self) -> None:
        self.made: list[tuple[Form, bytes]] = []

    def __call__(self, body: bytes, form: Form) -> PreparedResponse:
        self.made.append((form, body))
        return prepare(200, [body], content_type="text/plain", cache_control="no-store")


def test_each_form_is_made_once_a_version() -> None:
    window, origin = watched(30)
    playlist, maker = Playlist(window.renditions["v0"]), Maker()
    playlist.render(window, FORMS[0], Maker())  # An earlier version, which updates are to.
    for event in origin.both():
        window.add(event)
    first = {form: playlist.render(window, form, maker) for form in FORMS}
    assert {form: playlist.render(window, form, maker) for form in FORMS} == first
    bodies = dict(maker.made)
    assert len(maker.made) == len(bodies) == len(FORMS)
    for delta in (False, True):
        for gz in (False, True):
            assert bodies[Form(False, delta, gz)] is bodies[Form(True, delta, gz)], "made once"
    for blocking in (False, True):
        for delta in (False, True):
            plain = bodies[Form(blocking=blocking, delta=delta)]
            assert gzip.decompress(bodies[Form(blocking, delta, gzip=True)]) == plain
            assert (b"#EXT-X-SKIP:" in plain) is delta
        whole, update = bodies[Form(blocking=blocking)], bodies[Form(blocking, delta=True)]
        assert len(update) < len(whole)
    for event in origin.both():
        window.add(event)
    assert playlist.render(window, FORMS[0], maker) is not first[FORMS[0]]
    assert len(maker.made) == len(FORMS) + 1, "the others when they are asked for"


def test_entity_tags_are_quoted_and_tell_bodies_apart() -> None:
    assert entity_tag(b"a") == entity_tag(b"a")
    assert entity_tag(b"a") != entity_tag(b"b")
    assert len(entity_tag(b"")) == 18
    assert entity_tag(b"")[0] == entity_tag(b"")[-1] == '"'


def test_who_names_no_version_gets_the_newest_as_it_was_made() -> None:
    window, origin = watched(3)
    playlist, maker = Playlist(window.renditions["v0"]), Maker()
    for form in (POLLED, POLLED_GZIP):
        assert playlist.polled(gzip=form.gzip) is None, "nobody has asked yet"
        made = playlist.render(window, form, maker)
        assert playlist.polled(gzip=form.gzip) is made
    for event in origin.both():
        window.add(event)
    assert playlist.polled(gzip=False) is playlist.polled(gzip=True) is None, "it is older"
    playlist.render(window, POLLED, maker)
    assert playlist.polled(gzip=True) is None, "that one has not been made anew"
    playlist.forget_made()
    assert playlist.polled(gzip=False) is None
