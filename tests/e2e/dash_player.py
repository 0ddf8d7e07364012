"""dash.js of a pinned version, brought from npm for tests only, playing in headless Chromium."""

import base64
import hashlib
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.conftest import require, require_found
from tests.e2e.browser import Page

PACKAGE = "dashjs@4.7.4"
# npm's own integrity of the archive.
INTEGRITY = (
    "sha512-+hldo25QPP3H/NOwqUrvt4uKdMse60/Gsz9AUAnoYfhga8qHWq4nWiojUosOiigb"
    "igkDTCAn9ORcvUaKCvmfCA=="
)
MEMBER = "package/dist/dash.all.min.js"
NPM_TIMEOUT_S = 120

PAUSE_MS = 100  # Three pictures.

_PLAY = """
document.body.innerHTML = '<video muted></video>';
window.errors = [];
window.stalls = 0;  // Of more than PAUSE_MS: where a period ends, nothing is waited for.
let since = null;
const video = document.querySelector('video');
window.player = dashjs.MediaPlayer().create();
player.updateSettings({debug: {logLevel: dashjs.Debug.LOG_LEVEL_NONE}});
player.on('error', (event) => errors.push(JSON.stringify(event.error ?? event)));
video.addEventListener('waiting', () => { if (video.played.length) since = performance.now(); });
video.addEventListener('playing', () => {
  if (since !== null && performance.now() - since > PAUSE_MS) stalls++;
  since = null;
});
player.initialize(video, URL_OF_IT, true);
undefined
"""

_LOOK = """(() => {
  const video = document.querySelector('video');
  return {
    at_s: video.currentTime,
    behind_s: player.getCurrentLiveLatency(),
    width: video.videoWidth,
    audio_bytes: video.webkitAudioDecodedByteCount,
    frames: video.getVideoPlaybackQuality().totalVideoFrames,
    dropped: video.getVideoPlaybackQuality().droppedVideoFrames,
    errors, stalls: stalls + (since !== null && performance.now() - since > PAUSE_MS),
  };
})()"""


class Seen(Struct, frozen=True):
    """How playback went."""

    at_s: float
    behind_s: float
    width: int
    audio_bytes: int
    frames: int
    dropped: int
    errors: list[str]
    stalls: int


def take_dashjs() -> str:
    """The player's source; fetched once into the user's cache, and checked each time."""
    require("npm")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edged-tests"
    archive = cache / f"{PACKAGE.replace('@', '-')}.tgz"
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            command = ["npm", "pack", PACKAGE, "--silent", "--ignore-scripts"]
            subprocess.run(command, cwd=folder, check=False, timeout=NPM_TIMEOUT_S)  # noqa: S603
            found = list(Path(folder).glob("*.tgz"))
            require_found(f"{PACKAGE} from npm", found=len(found) == 1)
            found[0].rename(archive)
    data = archive.read_bytes()
    digest = f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}"
    if digest != INTEGRITY:
        archive.unlink()
    assert digest == INTEGRITY, f"the archive of {PACKAGE} has {digest}"
    with tarfile.open(archive) as tar:
        member = tar.extractfile(MEMBER)
        assert member is not None, "the archive's hash vouches for its contents"
        return member.read().decode()


async def play_dash(page: Page, url: str) -> None:
    """Have dash.js play a manifest, with its stock settings."""
    await page.evaluate(f"{take_dashjs()}; undefined")
    await page.evaluate(_PLAY.replace("URL_OF_IT", f"'{url}'").replace("PAUSE_MS", f"{PAUSE_MS}"))


async def look(page: Page) -> Seen:
    """How it goes."""
    look_now = _LOOK.replace("PAUSE_MS", f"{PAUSE_MS}")
    return msgspec.convert(await page.evaluate(look_now), Seen)
