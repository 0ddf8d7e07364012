import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.wire.rtmp.handshake import (
    PACKET_BYTES,
    ClientHandshake,
    HandshakeState,
    ServerHandshake,
    Stage,
)
from tests.wire.rtmp.peers import entropy, pieces


@pytest.mark.parametrize("scheme", [None, 0, 1])
def test_both_sides_agree_and_give_back_what_follows(scheme: int | None) -> None:
    client = ClientHandshake(1.0, entropy, scheme)
    server = ServerHandshake(2.0, entropy)
    answer, rest = server.receive_data(client.first())
    assert not rest
    assert len(answer) == 1 + 2 * PACKET_BYTES
    # A client may pipeline; a digest is known by the version in S1.
    assert (answer[5:9] == bytes(4)) == (scheme is None)
    second, rest = client.receive_data(answer + b"behind")
    assert client.done
    assert bytes(rest) == b"behind"
    assert len(second) == PACKET_BYTES
    answer, rest = server.receive_data(second + b"connect")
    assert answer == b""
    assert bytes(rest) == b"connect"
    assert server.state.stage is Stage.DONE


def test_the_plain_answer_echoes() -> None:
    client = ClientHandshake(1.0, entropy)
    c1 = client.first()[1:]
    answer, _ = ServerHandshake(2.5, entropy).receive_data(client.first())
    s1, s2 = answer[1 : 1 + PACKET_BYTES], answer[1 + PACKET_BYTES :]
    assert s1[:8] == (2500).to_bytes(4, "big") + bytes(4)
    assert s2[:4] == c1[:4]
    assert s2[4:8] == s1[:4]
    assert s2[8:] == c1[8:]
    second, _ = client.receive_data(answer)
    assert second == s1


@pytest.mark.parametrize("scheme", [0, 1])
def test_a_wrong_answer_to_the_digest_is_refused(scheme: int) -> None:
    client = ClientHandshake(1.0, entropy, scheme)
    answer, _ = ServerHandshake(2.0, entropy).receive_data(client.first())
    broken = answer[:-1] + bytes([answer[-1] ^ 1])
    with pytest.raises(RemoteProtocolError, match="answer to our handshake digest is wrong"):
        client.receive_data(broken)


def test_a_server_without_digests_gets_the_plain_answer() -> None:
    client = ClientHandshake(1.0, entropy, 1)
    s1 = bytes(8) + entropy(PACKET_BYTES - 8)
    second, _ = client.receive_data(b"\x03" + s1 + bytes(PACKET_BYTES))
    assert second == s1


def test_a_version_without_a_digest_is_answered_plainly() -> None:
    c1 = bytes(4) + b"\x09\0\x7c\x02" + entropy(PACKET_BYTES - 8)
    answer, _ = ServerHandshake(2.0, entropy).receive_data(b"\x03" + c1)
    assert answer[5:9] == bytes(4)


@pytest.mark.parametrize("first", [b"\x06", b"G", b"\x16\x03\x01"])
def test_another_version_is_refused_at_its_first_byte(first: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=f"version is {first[0]}, not 3"):
        ServerHandshake(0.0, entropy).receive_data(first)
    with pytest.raises(RemoteProtocolError, match=f"version is {first[0]}, not 3"):
        ClientHandshake(0.0, entropy).receive_data(first)


@hypothesis.given(
    st.sampled_from([None, 0, 1]), st.lists(st.integers(0, 1 + 2 * PACKET_BYTES), max_size=8)
)
@hypothesis.settings(max_examples=20, deadline=None)
def test_any_split_and_any_hand_over_give_the_same(scheme: int | None, cuts: list[int]) -> None:
    client = ClientHandshake(1.0, entropy, scheme)
    whole, _ = ServerHandshake(2.0, entropy).receive_data(client.first())
    second, _ = ClientHandshake(1.0, entropy, scheme).receive_data(whole)
    wire = client.first() + second + b"rest"
    server = ServerHandshake(2.0, entropy)
    answers, behind = b"", b""
    for piece in pieces(wire, cuts):
        answer, rest = server.receive_data(memoryview(piece))
        answers += answer
        behind += bytes(rest)
        state = HandshakeState(server.state.stage, bytearray(server.state.inbox))
        server = ServerHandshake(2.0, entropy, state)
    assert answers == whole
    assert behind == b"rest"
