import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.runtime.tls import Identity, MutualTls
from edged.runtime.tls_calls import TLS_WRITE_BYTES, Buffer, encrypt, tls_calls
from edged.tools.cert import make_authority, make_host_certificate

Ends = tuple[ssl.SSLSocket, ssl.SSLSocket]


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    make_authority(tmp_path, "test", now=time.time())
    made = MutualTls(make_host_certificate(tmp_path, Identity("pop", "a"), now=time.time()))
    left, right = socket.socketpair()
    server = made.server.wrap_socket(left, server_side=True, do_handshake_on_connect=False)
    client = made.client.wrap_socket(right, do_handshake_on_connect=False)
    other = threading.Thread(target=client.do_handshake)
    other.start()
    server.do_handshake()
    other.join()
    with server, client:
        yield server, client


def test_a_plain_socket_has_none() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert tls_calls(left) == (None, None)


def test_they_do_as_the_sockets_own(ends: Ends) -> None:
    server, client = ends
    read, encrypt = tls_calls(server)
    assert read is not None
    assert encrypt is not None
    assert "SSLSocket.read" not in repr(read), "without the call around"
    assert encrypt(b"one ") == 4
    assert encrypt(memoryview(b"two")) == 3
    assert client.recv(4) + client.recv(3) == b"one two"
    client.sendall(b"three")
    buffer = memoryview(bytearray(8))
    assert read(3, buffer) == 3
    assert read(8, buffer[3:]) == 2
    assert bytes(buffer[:5]) == b"three"


def test_a_peer_that_says_goodbye(ends: Ends) -> None:
    server, client = ends
    read, _ = tls_calls(server)
    assert read is not None
    client.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()
    assert read(8, memoryview(bytearray(8))) == 0


def test_a_peer_that_hangs_up(ends: Ends) -> None:
    server, client = ends
    read, _ = tls_calls(server)
    assert read is not None
    client.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ssl.SSLEOFError):
        read(8, memoryview(bytearray(8)))


def test_what_is_no_socket_of_cpythons_is_asked_itself(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = ends
    monkeypatch.setattr(server, "_sslobj", None)
    assert [getattr(call, "__self__", None) for call in tls_calls(server)] == [server, server]


def test_pieces_are_of_one_size_and_what_is_not_taken_ends_them() -> None:
    data = bytes(range(256)) * 1024  # Four pieces.
    taken: list[bytes] = []

    def write(piece: Buffer) -> int:
        if len(taken) == 3:
            raise ssl.SSLWantWriteError
        taken.append(bytes(piece))
        return len(piece)

    assert encrypt(write, [data]) == 3 * TLS_WRITE_BYTES
    assert b"".join(taken) == data[: 3 * TLS_WRITE_BYTES]
    assert {len(piece) for piece in taken} == {TLS_WRITE_BYTES}
    assert encrypt(write, [data]) == 0
    with pytest.raises(ssl.SSLWantWriteError):
        encrypt(write, [b"one"])
    taken.clear()
    assert encrypt(write, [b"one", memoryview(b"two")]) == 6
    assert taken == [b"onetwo"]
