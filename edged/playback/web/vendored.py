"""hls.js, pinned: which version, its hashes, and how it is taken out of npm's archive.

Standard library only: the build hook loads this file before the package exists.
"""

import base64
import hashlib
import io
import tarfile

HLS_VERSION = "1.7.4"
HLS_PACKAGE = f"hls.js@{HLS_VERSION}"
HLS_FILE = "hls.min.js"
HLS_MEMBER = f"package/dist/{HLS_FILE}"
HLS_BYTES_MAX = 4 * 2**20  # Six times its size; a member beyond it isn't read.
# npm's own integrity of the archive, and the Subresource Integrity of the file in it, whoever
# serves it.
ARCHIVE_INTEGRITY = (
    "sha512-3GlxGdPvT2YHvQYOt+yOzT/DEior/qJVNIylHA77kgeoBTdQQqi70GwefNEUmHQe"
    "NGyjC8U62+bruqW/Tpm+tg=="
)
HLS_INTEGRITY = "sha384-p9vgU/7IYJWd3I4STrtqxqR/2cAQlhIX7D/HrTnIMEjjcUox165b7se7sxmm3zDg"
HLS_CDN_ORIGIN = "https://cdn.jsdelivr.net"
HLS_CDN_URL = f"{HLS_CDN_ORIGIN}/npm/{HLS_PACKAGE}/dist/{HLS_FILE}"


class IntegrityError(ValueError):
    """The bytes are not those that the source names."""


def integrity(algorithm: str, data: bytes) -> str:
    """Return the hash of `data` as Subresource Integrity writes it: "sha384-..."."""
    digest = hashlib.new(algorithm, data).digest()
    return f"{algorithm}-{base64.b64encode(digest).decode()}"


def is_hls(data: bytes) -> bool:
    """Tell whether `data` is the pinned hls.min.js."""
    return integrity("sha384", data) == HLS_INTEGRITY


def take_hls(archive: bytes) -> bytes:
    """Return hls.min.js out of npm's archive of the pinned version; raise IntegrityError for any
    other bytes.
    """
    found = integrity("sha512", archive)
    if found != ARCHIVE_INTEGRITY:
        raise IntegrityError(f"the archive of {HLS_PACKAGE} has {found}, not {ARCHIVE_INTEGRITY}")
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        member = tar.extractfile(HLS_MEMBER)
        assert member is not None, "the archive's hash vouches for its contents"
        data = member.read(HLS_BYTES_MAX)
    if not is_hls(data):
        raise IntegrityError(f"{HLS_MEMBER} has {integrity('sha384', data)}, not {HLS_INTEGRITY}")
    return data
