import socket

from edged.runtime.tcp_info import read_tcp_info


def test_a_connection_tells_what_it_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            before = read_tcp_info(client)
            assert before is not None
            for _ in range(5):
                client.sendall(b"x" * 1000)
                accepted.recv(1000)
            after = read_tcp_info(client)
            assert after is not None
            assert after.segments - before.segments == 5
            assert after.resent == 0
            assert 0 < after.rtt_s < 0.1
            assert after.delivery_bps > 0
            assert after.unsent_bytes == 0


def test_what_the_peer_does_not_read_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            client.setblocking(False)
            try:
                while True:
                    client.send(b"x" * 65536)
            except BlockingIOError:
                pass
            info = read_tcp_info(client)
            assert info is not None
            assert info.unsent_bytes > 0


def test_others_have_none() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert read_tcp_info(one) is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert read_tcp_info(sock) is None
    assert read_tcp_info(one) is None  # Closed.
