"""One rendition's playlist as ready answers: made once per version, in each form asked for."""

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from edged.policy.blocking_reload import is_reached
from edged.policy.delivery_directives import PlaylistEdge, Wait
from edged.policy.rendition_window import RenditionWindow
from edged.policy.window import StreamWindow
from edged.wire.content_coding import CodedBlock, compress, compress_blocks
from edged.wire.m3u8 import OlderText, render_blocks, render_multivariant
from edged.wire.prepared import PreparedResponse

if TYPE_CHECKING:
    from edged.media.playlist import MediaPlaylist
    from edged.playback.waiting import Exchange, Waiters


class Form(NamedTuple):
    """What the same version of a playlist may be asked for as."""

    blocking: bool = False  # For caches: it never changes, as its address asks for that version.
    delta: bool = False
    gzip: bool = False


# Which of its forms an address of text has depends on this field of the request.
Fields = tuple[tuple[str, str], ...]
VARIES: Fields = (("Vary", "Accept-Encoding"),)
GZIPPED: Fields = (*VARIES, ("Content-Encoding", "gzip"))
POLLED, POLLED_GZIP = Form(), Form(gzip=True)  # As who names no version asks for it.
Prepare = Callable[[bytes, Form], PreparedResponse]


class Playlist:
    """One rendition's playlist, and the requests that it blocks."""

    def __init__(self, window: RenditionWindow) -> None:
        self.window = window
        self.first: Waiters = {}  # For any media at all.
        # Few keys: waits that are too far ahead are rejected, and there are four forms.
        self.waiting: dict[tuple[Wait, Form], Waiters] = {}
        self.oldest_msn = -1
        self.names: dict[int, list[str]] = {}  # Made responses by MSN, to drop with their segment.
        self.init_names: dict[str, str] = {}  # By digest.
        self._version = -1
        self._shown_msn = -1  # The last segment that the version before this one had.
        self._responses: dict[Form, PreparedResponse] = {}
        self._polled: PreparedResponse | None = None  # Of them, as most of who poll ask for it;
        self._polled_gzip: PreparedResponse | None = None  # and by gzip.
        self._blocks: dict[bool, list[CodedBlock]] = {}  # By delta.
        self._bodies: dict[tuple[bool, bool], bytes] = {}  # By delta and gzip.
        self._older = OlderText()
        self._content: MediaPlaylist | None = None

    @property
    def blocked(self) -> int:
        """Requests that wait here."""
        return len(self.first) + sum(map(len, self.waiting.values()))

    def waiters(self) -> "Iterator[Exchange]":
        """Who waits for what is next."""
        for group in self.waiting.values():
            yield from group

    def edge(self, *, ended: bool) -> PlaylistEdge:
        """How far it is, as blocking reload asks."""
        window = self.window
        assert window.shown, "a playlist that has begun is never empty"
        return PlaylistEdge(
            last_msn=window.last_msn,
            last_part=window.last_part,
            complete=window.entries[window.shown - 1].complete,
            part_target_us=window.rendition.part_target_us if window.has_parts else 0,
            ended=ended,
        )

    def reached(self, *, ended: bool) -> list[tuple[Wait, Form]]:
        """The waits that are over: all where nothing is to come, none where all has been lost."""
        if self.window.rendition.away or (ended and not self.window.shown):
            return list(self.waiting)
        if not self.window.shown:
            return []
        edge = self.edge(ended=ended)
        return [key for key in self.waiting if is_reached(key[0], edge)]

    def render(self, stream: StreamWindow, form: Form, prepare: Prepare) -> PreparedResponse:
        """The answer in a form; `prepare` makes it of its body, once per version."""
        window = self.window
        if self._version != window.version:
            self._version = window.version
            self.forget_made()
            self._bodies.clear()
            self._blocks.clear()
            self._content = content = stream.media_playlist(window.rendition.name)
            if content is not None:  # No update may leave out what nobody can have seen.
                unseen_from = self._shown_msn + 1 - content.segments[0].msn
                content.skippable = min(content.skippable, max(unseen_from, 0))
                self._shown_msn = content.segments[-1].msn
        response = self._responses.get(form)
        if response is None:
            response = prepare(self._body(form.delta, form.gzip), form)
            self._responses[form] = response
            if form is POLLED:
                self._polled = response
            elif form is POLLED_GZIP:
                self._polled_gzip = response
        return response

    def polled(self, *, gzip: bool) -> PreparedResponse | None:
        """What `render` would give for who names no version; None where it has to be made."""
        if self._version != self.window.version:
            return None
        return self._polled_gzip if gzip else self._polled

    def forget_made(self) -> None:
        """Have the answers of this version made anew; the bodies stay as they are."""
        self._responses.clear()
        self._polled = self._polled_gzip = None

    def _body(self, delta: bool, gzip: bool) -> bytes:
        body = self._bodies.get((delta, gzip))
        if body is None:
            blocks = self._blocks.get(delta)
            if blocks is None:
                content = self._content
                assert content is not None, "a playlist is asked for once it has media"
                blocks = self._blocks[delta] = render_blocks(content, self._older, delta=delta)
            body = compress_blocks(blocks) if gzip else b"".join(block.text for block in blocks)
            self._bodies[delta, gzip] = body
        return body


class Multivariants:
    """One run's multivariant playlist."""

    def __init__(self, window: StreamWindow) -> None:
        self._window = window
        # By base, of which there are three at most, and coding.
        self._responses: dict[tuple[str, bool], PreparedResponse] = {}
        self._version = -1

    def forget_made(self) -> None:
        """Have the answers of this version made anew."""
        self._responses.clear()

    def respond(self, prepare: Prepare, *, base: str, gzip: bool) -> PreparedResponse | None:
        """The playlist, its URIs behind `base`; None until every rendition is there to be named."""
        window = self._window
        if not window.ready:
            return None
        if self._version != window.version:
            self._version = window.version
            self._responses.clear()
        response = self._responses.get((base, gzip))
        if response is None:
            playlist = window.multivariant_playlist()
            assert playlist is not None, "a window that is ready has media"
            body = render_multivariant(playlist, base)
            response = prepare(compress(body) if gzip else body, Form(gzip=gzip))
            self._responses[base, gzip] = response
        return response


def entity_tag(body: bytes) -> str:
    """Names these bytes among all that an address ever has (RFC 9110 §8.8.3)."""
    return f'"{hashlib.blake2b(body, digest_size=8).hexdigest()}"'
