"""Sockets are marked in both families, and so is what they accept; others are not."""

import socket

import pytest
from structlog.testing import capture_logs

from edged.runtime.dscp import AF41, AF42, AF43, CS6, mark


def marks_of(sock: socket.socket) -> tuple[int, int]:
    """DSCP of IPv4 packets and of IPv6 ones; -1: it has none."""
    v6 = -1
    if sock.family == socket.AF_INET6:
        v6 = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) >> 2
    return sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) >> 2, v6


@pytest.mark.parametrize("dscp", [AF41, AF42, AF43, CS6])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_both_ends_of_a_connection(address: str, dscp: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    expected = (dscp, dscp if family == socket.AF_INET6 else -1)
    with socket.create_server((address, 0), family=family) as listener:
        mark(listener, dscp)
        with socket.create_connection(listener.getsockname()[:2]) as caller:
            accepted, _ = listener.accept()
            with accepted:
                assert marks_of(accepted) == expected
                assert marks_of(caller) == (0, 0 if family == socket.AF_INET6 else -1)
                mark(caller, dscp)
                assert marks_of(caller) == expected


def test_a_dual_stack_socket_is_marked_for_ipv4_callers_too() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        mark(listener, CS6)
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
            accepted, _ = listener.accept()
            with accepted:
                assert marks_of(accepted) == (CS6, CS6)


def test_what_is_of_no_network_is_left_alone() -> None:
    one, two = socket.socketpair()
    with one, two:
        mark(one, CS6)


def test_a_refusal_of_the_system_harms_nothing() -> None:
    sock = socket.socket()
    sock.close()
    with capture_logs() as logs:
        mark(sock, CS6)
    assert sock.fileno() == -1
    assert all(line["log_level"] == "debug" for line in logs)
    assert len(logs) == 1
