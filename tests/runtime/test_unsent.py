import socket

from edged.runtime.unsent import unsent_bytes


def test_what_the_peer_does_not_take_is_unsent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        with ours, theirs:
            assert unsent_bytes(ours) == 0
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
            sent = ours.send(bytes(2**20))
            assert 0 < unsent_bytes(ours) <= sent


def test_other_sockets_do_not_say() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.send(b"abc")
            assert unsent_bytes(ours) == 0
        assert unsent_bytes(ours) == 0, "closed"
