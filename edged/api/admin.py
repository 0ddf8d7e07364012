"""The admin door: a Unix socket on which the command line asks a running edged.

One JSON object per line each way: `{"command": "streams", "arguments": {}}` is answered by
`{"result": ...}` or `{"error": "..."}`. Whoever may open the socket (mode 0600) administers;
nothing here is reachable from outside the host.
"""

import os
import socket
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
import trio
from msgspec import Meta, Struct

from edged.errors import ConfigError, EdgedError

LINE_BYTES_MAX = 64 * 1024  # A request: a command and a few names.
ANSWER_BYTES_MAX = 64 * 2**20  # An answer: every stream of a full PoP, with room.
SESSIONS_MAX = 32  # People and scripts of one host.
IDLE_TIMEOUT_S = 30.0
SOCKET_MODE = 0o600

logger = structlog.get_logger("edged.admin")

Arguments = Mapping[str, str]
Handler = Callable[[Arguments], object]  # Returns what msgspec can encode; may raise EdgedError.


class AdminConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[admin]`: where the command line finds this process, and its status page, if it has one."""

    socket: Path = Path("/run/edged/admin.sock")
    listen: str | None = None  # Of the status page: loopback only. None: there is none.
    token_file: Path | None = None  # What opens the page: in a file,
    token_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None = None  # or its digest.

    def __post_init__(self) -> None:
        """A page needs a token, given once."""
        given = [key for key in ("token_file", "token_sha256") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError("token_file and token_sha256: give one of them")
        if self.listen is not None and not given:
            raise ValueError("listen needs a token: token_file or token_sha256")
        if self.listen is None and given:
            raise ValueError(f"{given[0]} is of no use without listen")


class AdminRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question."""

    command: str
    arguments: dict[str, str] = {}


class AdminAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer: the result, or why there is none."""

    result: msgspec.Raw = msgspec.Raw(b"")
    error: str = ""


def default_sockets() -> list[Path]:
    """Where the command line looks when it is not told: the service's place, then the demo's."""
    return [AdminConfig().socket, demo_directory() / "admin.sock"]


def demo_directory() -> Path:
    """This user's own place for a demo's socket and state."""
    return Path(tempfile.gettempdir()) / f"edged-{os.getuid()}"


def require_private(folder: Path) -> None:
    """Raise `ConfigError` unless a folder is this user's own and closed to all others.

    A demo's place has a name that anyone can guess in a folder where anyone may write: whoever made
    it first would read its stream keys, or answer in its stead.
    """
    try:
        status = folder.lstat()
    except OSError as error:
        raise ConfigError(f"folder {str(folder)!r}: {error.strerror or error}") from error
    if not stat.S_ISDIR(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no folder"
        wrong = f"is {what}: remove it, or take another by TMPDIR or --dir"
    elif status.st_uid != os.getuid():
        wrong = f"belongs to another user, {status.st_uid}: take one of your own by TMPDIR or --dir"
    elif status.st_mode & 0o077:
        wrong = f"is open to others, mode {status.st_mode & 0o777:o}: chmod 700 it"
    else:
        return
    raise ConfigError(f"folder {str(folder)!r} {wrong}")


def answer(line: bytes, handlers: Mapping[str, Handler]) -> bytes:
    """Answer one line; whatever is wrong with it becomes an error that says so."""
    try:
        request = msgspec.json.decode(line, type=AdminRequest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # No UTF-8, nested.
        return msgspec.json.encode(AdminAnswer(error=str(error))) + b"\n"
    try:
        handler = handlers.get(request.command)
        if handler is None:
            known = ", ".join(sorted(handlers))
            reply = AdminAnswer(error=f"unknown command {request.command!r}; known: {known}")
        else:
            encoded = msgspec.json.encode(handler(request.arguments))
            reply = AdminAnswer(result=msgspec.Raw(encoded))
    except EdgedError as error:
        reply = AdminAnswer(error=str(error))
    except Exception as error:  # A handler's bug ends nothing but its answer.
        logger.exception("admin command failed", command=request.command)
        reply = AdminAnswer(error=f"internal error in {request.command!r}: {error!r}; see the log")
    return msgspec.json.encode(reply) + b"\n"


async def serve_admin(
    config: AdminConfig,
    handlers: Mapping[str, Handler],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen until cancelled; raises `ConfigError` when the socket cannot be made."""
    listener = open_socket(config.socket)
    slots = trio.CapacityLimiter(SESSIONS_MAX)

    async def session(stream: trio.SocketStream) -> None:
        async with stream, slots:
            try:
                await _answer_lines(stream, handlers)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # The one who asked has left.
            except Exception:  # A handler's bug ends this session, never the process.
                logger.exception("admin session failed")

    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(
                session,
                [trio.SocketListener(trio.socket.from_stdlib_socket(listener))],
                handler_nursery=nursery,
            )
    finally:
        config.socket.unlink(missing_ok=True)


def open_socket(path: Path) -> socket.socket:
    """Bind the socket; one that a dead process left behind is replaced, a living one is not."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear_the_way(path)
        sock.bind(str(path))
        path.chmod(SOCKET_MODE)
        sock.listen(SESSIONS_MAX)
    except OSError as error:
        sock.close()
        raise ConfigError(f"admin socket {str(path)!r}: {error.strerror or error}") from error
    except ConfigError:
        sock.close()
        raise
    return sock


def _clear_the_way(path: Path) -> None:
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise ConfigError(f"admin socket {str(path)!r}: a file that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise ConfigError(f"admin socket {str(path)!r}: another edged answers there")
    path.unlink()


async def ask(path: Path, command: str, arguments: Arguments, *, timeout_s: float = 5.0) -> bytes:
    """Ask a running edged; the JSON of its result. Raises `EdgedError` with what went wrong."""
    request = write_request(command, arguments)
    try:
        with trio.fail_after(timeout_s):
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(request)
                line = await _receive_line(stream, bytearray(), ANSWER_BYTES_MAX)
    except OSError as error:
        raise EdgedError(f"no edged answers at {str(path)!r}: {error.strerror or error}") from error
    except trio.BrokenResourceError as error:
        raise EdgedError(f"edged at {str(path)!r} closed the connection") from error
    except trio.TooSlowError:
        raise EdgedError(f"edged at {str(path)!r} did not answer in {timeout_s:g} s") from None
    return read_answer(line, repr(str(path)))


def write_request(command: str, arguments: Arguments) -> bytes:
    """A command as a line."""
    request = AdminRequest(command=command, arguments=dict(arguments))
    return msgspec.json.encode(request) + b"\n"


def read_answer(line: bytes, place: str) -> bytes:
    """The result in an answer's line; raises `EdgedError` with what went wrong at `place`."""
    try:
        reply = msgspec.json.decode(line or b"{}", type=AdminAnswer)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise EdgedError(f"what answers at {place} is no edged: {error}") from error
    if reply.error or not reply.result:
        raise EdgedError(reply.error or f"edged at {place} closed the connection")
    return bytes(reply.result)


async def _answer_lines(stream: trio.SocketStream, handlers: Mapping[str, Handler]) -> None:
    inbox = bytearray()
    while True:
        with trio.move_on_after(IDLE_TIMEOUT_S) as idle:
            line = await _receive_line(stream, inbox, LINE_BYTES_MAX)
        if idle.cancelled_caught or not line:
            return
        with trio.move_on_after(IDLE_TIMEOUT_S):
            await stream.send_all(answer(line, handlers))


async def _receive_line(stream: trio.SocketStream, inbox: bytearray, bytes_max: int) -> bytes:
    """The next line without its end; empty when the peer closed or the line is too long."""
    while (end := inbox.find(b"\n")) < 0:
        if len(inbox) > bytes_max:
            logger.warning("line too long", bytes=len(inbox), bytes_max=bytes_max)
            return b""
        data = await stream.receive_some(64 * 1024)
        if not data:
            return b""
        inbox += data
    line = bytes(inbox[:end])
    del inbox[: end + 1]
    return line
