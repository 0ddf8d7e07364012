"""The same bytes to many sockets: as the kernel takes them, in Python and compiled."""

import errno
import socket

import pytest

from edged.runtime import sends
from edged.runtime.sends import SendEach, send_each_in_python
from tests.conftest import require_found

SIZE = 100_000


@pytest.fixture(params=["python", "compiled"])
def send_each(request: pytest.FixtureRequest) -> SendEach:
    if request.param == "python":
        return send_each_in_python
    require_found("a compiled runtime", found=sends.send_each is not send_each_in_python)
    return sends.send_each


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while True:
        try:
            piece = sock.recv(1 << 20)
        except BlockingIOError:
            return bytes(data)
        if not piece:
            return bytes(data)
        data += piece


def test_each_tells_what_was_taken(send_each: SendEach) -> None:
    pairs = [pair() for _ in range(5)]
    pairs[1][1].close()
    full = pairs[2][0]
    while True:
        try:
            full.send(bytes(SIZE))
        except BlockingIOError:
            break
    gone = pairs[3][0].fileno()
    pairs[3][0].close()
    fds = [ours.fileno() if ours.fileno() >= 0 else gone for ours, _ in pairs]
    took = send_each(fds, b"hello")
    assert took == [5, -errno.EPIPE, -errno.EAGAIN, -errno.EBADF, 5]
    assert read_all(pairs[0][1]) == read_all(pairs[4][1]) == b"hello"
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    assert send_each([], b"hello") == []


def test_a_part_of_it_is_told(send_each: SendEach) -> None:
    ours, theirs = pair()
    data = bytes(range(256)) * 40_000
    (took,) = send_each([ours.fileno()], data)
    assert 0 < took < len(data)
    assert read_all(theirs) == data[:took]
    ours.close()
    theirs.close()
