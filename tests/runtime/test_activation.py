"""Sockets that were passed in: understood, taken by the listeners at their addresses, or closed."""

import contextlib
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from edged.errors import ConfigError
from edged.runtime.activation import FDS_MAX, Activation, receive
from edged.runtime.listeners import adopt, open_listener, peer_name

FIRST = 500  # Where the descriptors are put: 3 and on are pytest's own.


def listening(host: str = "127.0.0.1", family: int = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, 0))
    sock.listen()
    return sock


def variables(count: object, names: str = "") -> dict[str, str]:
    return {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(count),
        "LISTEN_FDNAMES": names,
        "HOME": "/",
    }


@contextlib.contextmanager
def passed(*socks: socket.socket, names: str = "") -> Iterator[Activation]:
    """As if these had been passed to this process; ours are closed, as after exec."""
    for index, sock in enumerate(socks):
        os.dup2(sock.fileno(), FIRST + index, inheritable=True)
        sock.close()
    environ = variables(len(socks), names)
    activation = receive(environ, first=FIRST)
    assert environ == {"HOME": "/"}, "no child is to take them for its own"
    adopt(activation)
    try:
        yield activation
    finally:
        adopt(Activation())
        activation.close()
    assert not any(is_open(FIRST + index) for index in range(len(socks)))


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_nothing_is_passed_to_most() -> None:
    assert len(receive({}, first=FIRST)) == 0
    environ = {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1"}
    assert len(receive(environ, first=FIRST)) == 0, "it is meant for the one who started us"
    assert environ == {}


def test_what_is_received_goes_to_no_child() -> None:
    with passed(listening(), names="http") as activation:
        assert len(activation) == 1
        assert not os.get_inheritable(FIRST)


@pytest.mark.parametrize("wanted", ["127.0.0.1", "localhost"])
def test_a_listener_takes_the_socket_at_its_address(wanted: str) -> None:
    sock = listening()
    port = sock.getsockname()[1]
    with passed(sock, names="http"), socket.socket() as caller:
        caller.connect(("127.0.0.1", port))  # Before anybody accepts: it waits in the queue.
        for _ in range(2):  # Closed and opened again, as by a plug-in that is restarted.
            with capture_logs() as logs, open_listener(f"{wanted}:{port}") as listener:
                assert not listener.getblocking()
                assert peer_name(listener.getsockname()) == f"127.0.0.1:{port}"
            assert logs[0]["listen"] == f"127.0.0.1:{port} (http)"
        with open_listener(f"{wanted}:{port}") as listener:
            accepted, source = listener.accept()
            assert source == caller.getsockname()
            accepted.close()


def test_all_addresses_are_those_of_ipv6_and_ipv4() -> None:
    sock = listening("::", socket.AF_INET6)
    port = sock.getsockname()[1]
    with passed(sock):
        for address in (f"[::]:{port}", f":{port}", f"[0:0::0]:{port}"):
            with open_listener(address) as listener:
                assert listener.getsockname()[1] == port


def test_an_inherited_socket_for_ipv6_alone_is_told() -> None:
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("::", 0))
    sock.listen()
    port = sock.getsockname()[1]
    with passed(sock), capture_logs() as logs:
        open_listener(f"[::]:{port}").close()
    assert [line["event"] for line in logs] == [
        "inherited socket",
        "inherited socket takes IPv6 alone",
    ]


def test_another_address_at_the_port_is_named() -> None:
    sock = listening("::", socket.AF_INET6)
    port = sock.getsockname()[1]
    with passed(sock, names="edged@pop.socket"):
        message = rf"in use; a socket that was passed in has the port: \[::\]:{port} \(edged@pop"
        with pytest.raises(ConfigError, match=message):
            open_listener(f"127.0.0.1:{port}")


def test_what_nobody_wants_is_closed_and_named() -> None:
    wanted, other, family = listening(), listening(), socket.socketpair()
    port, stray = wanted.getsockname()[1], other.getsockname()[1]
    with passed(wanted, other, *family, names="a:b:c:d") as activation:
        with open_listener(f"127.0.0.1:{port}"), capture_logs() as logs:
            activation.close_unclaimed()
        assert [line["socket"] for line in logs] == [f"127.0.0.1:{stray} (b)", "'' (c)", "'' (d)"]
        assert [is_open(FIRST + index) for index in range(4)] == [True, False, False, False]
        open_listener(f"127.0.0.1:{stray}").close()  # The address is free again.


def test_what_does_not_listen_is_not_taken() -> None:
    """Bound to the address, but no listener: a connection, or a datagram socket."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    with passed(sock) as activation:
        assert activation.claim(socket.AF_INET, "127.0.0.1", port) is None
        assert activation.claim(socket.AF_INET, "127.0.0.1", 0) is None


def test_datagram_sockets_are_claimed_by_their_kind() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    with passed(sock) as activation:
        assert activation.claim(socket.AF_INET, "127.0.0.1", port) is None
        claimed = activation.claim(socket.AF_INET, "127.0.0.1", port, socket.SOCK_DGRAM)
        assert claimed is not None
        claimed.close()


def test_what_is_no_socket_is_closed_and_named(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.dup2(fd, FIRST)
    os.close(fd)
    activation = receive(variables(1), first=FIRST)
    with capture_logs() as logs:
        activation.close_unclaimed()
    assert logs[0]["socket"] == "no socket (unknown)"
    assert not is_open(FIRST)


@pytest.mark.parametrize(
    ("count", "names", "message"),
    [
        ("x", "", r"LISTEN_FDS 'x' is not a number of 0 to 256"),
        ("-1", "", r"is not a number"),
        ("9" * 5000, "", r"is not a number"),
        (str(FDS_MAX + 1), "", r"LISTEN_FDS 257 is more than 256"),
        ("2", "a:b:c", r"LISTEN_FDNAMES has 3 names for 2 descriptors"),
        ("1", "gone", r"LISTEN_FDS is 1, but descriptor 500 \(gone\): Bad file descriptor"),
    ],
)
def test_nonsense_is_named(count: str, names: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        receive(variables(count, names), first=FIRST)


def test_at_the_limit() -> None:
    assert len(receive(variables(0), first=FIRST)) == 0
    gc.collect()  # Descriptors that earlier tests left to it: ours must stay below FIRST.
    socks = [socket.socket() for _ in range(FDS_MAX)]
    assert max(sock.fileno() for sock in socks) < FIRST
    with passed(*socks) as activation, capture_logs():
        assert len(activation) == FDS_MAX
        activation.close_unclaimed()
        assert len(activation) == 0


def test_the_real_descriptors_begin_at_three() -> None:
    """In a process of its own, as a service manager starts it."""
    program = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
        "from edged.runtime.activation import receive;"
        "a = receive(os.environ);"
        "print(len(a), a.claim(2, '127.0.0.1', int(sys.argv[2])).getsockname()[1],"
        " 'LISTEN_FDS' in os.environ)"
    )
    with listening() as sock:
        port = sock.getsockname()[1]
        done = subprocess.run(  # noqa: S603 - our own arguments
            [sys.executable, "-c", program, str(sock.fileno()), str(port)],
            env={**os.environ, "LISTEN_FDS": "1"}, pass_fds=[sock.fileno()],
            capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
    assert done.stdout.splitlines()[-1] == f"1 {port} False"
