"""DASH manifests as ready answers: made once per version, in each form asked for.

    /live/CHANNEL/manifest.mpd      of the run of now; says where to read on, below the run
    /live/CHANNEL/PUB/manifest.mpd  of one run

Everything else that they name is what HLS has, by the same addresses.
"""

import time
from collections.abc import Callable

from edged.errors import RemoteProtocolError
from edged.media.parts import Part
from edged.policy.dash import DashTimeline
from edged.policy.window import StreamWindow
from edged.wire.cmaf.reader import ReadInit, read_init, read_samples
from edged.wire.content_coding import compress
from edged.wire.mpd import render_manifest
from edged.wire.prepared import PreparedResponse

MANIFEST = "manifest.mpd"
MANIFEST_TYPE = "application/dash+xml"
INITS_MAX = 64  # Read ones that are kept; they are few and small.
US = 1_000_000

Prepare = Callable[[bytes, bool], PreparedResponse]
"""Makes the answer of a body, and of whether that is gzip."""


class FirstShown:
    """Tells what of a part is presented first. No manifest's method: that would be a cycle."""

    def __init__(self) -> None:
        self.inits: dict[bytes, ReadInit] = {}

    def __call__(self, init: bytes, part: Part) -> int:
        """Ticks from its decode time until then; 0 if nobody can tell."""
        try:
            known = self.inits.get(init)
            if known is None:
                while len(self.inits) >= INITS_MAX:
                    del self.inits[next(iter(self.inits))]
                known = self.inits[init] = read_init(init)
            tracks = read_samples(part.payload, known)
        except RemoteProtocolError:
            return 0
        times = [s.dts + s.composition for samples in tracks.values() for s in samples]
        return min(times) - part.tfdt if times else 0


class DashManifests:
    """One run's manifest."""

    def __init__(self, window: StreamWindow, *, unix_now: Callable[[], float] = time.time) -> None:
        """`unix_now` is what players set their clocks by."""
        self._window, self._unix_now = window, unix_now
        self._timeline = DashTimeline(FirstShown())
        self._version: object = None
        self._made_us = 0
        self._responses: dict[tuple[str, bool], PreparedResponse] = {}

    def forget(self) -> None:
        """Make anew what comes next: what is said of the run has changed."""
        self._version = None

    def respond(self, prepare: Prepare, *, base: str, gzip: bool) -> PreparedResponse | None:
        """The manifest, its addresses behind `base`; None while not all of it can be named."""
        if not self._window.ready:
            return None
        version = self._timeline.version(self._window)
        if version != self._version:
            self._version = version
            self._made_us = int(self._unix_now() * US)
            self._responses.clear()
        response = self._responses.get((base, gzip))
        if response is None:
            manifest = self._timeline.make_manifest(self._window, self._made_us)
            if manifest is None:
                return None
            location = f"{base}{MANIFEST}" if base else ""
            body = render_manifest(manifest, base=base, location=location)
            response = prepare(compress(body) if gzip else body, gzip)
            self._responses[base, gzip] = response
        return response
