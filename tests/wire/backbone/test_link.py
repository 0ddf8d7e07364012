import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import PeerLostError, RemoteProtocolError
from edged.media.stream import PriorityClass
from edged.wire.backbone import link as link_module
from edged.wire.backbone.events import Expected, MessageReceived, PeerAccepted, PeerClosed
from edged.wire.backbone.frames import (
    KIND_FRAGMENT,
    KIND_PING,
    KIND_PONG,
    make_frame,
    make_token_frame,
)
from edged.wire.backbone.link import (
    HELLO_S_MAX,
    LATE_S_MAX,
    MESSAGES_PER_READ_MAX,
    PING_INTERVAL_S,
    PINGS_OUT_MAX,
    SILENCE_S_MAX,
    WINDOW_BYTES_MAX,
    BackboneLink,
    PeerRefusedError,
)
from edged.wire.backbone.messages import (
    PROTO,
    WINDOW_BYTES_MIN,
    DirectoryWanted,
    Hello,
    StreamAccepted,
    StreamClosed,
    make_hello_frame,
    make_message_frame,
)
from tests.wire.backbone.builders import (
    ListSource,
    Pair,
    lost_reason,
    make_hello,
    make_track,
    make_unit,
    units_of,
)

POPS = frozenset({"pop"})


def make_server(expected: Expected | None = None) -> BackboneLink:
    return BackboneLink(
        make_hello("origin", "ams"), expected or Expected(roles=POPS), client=False, now=100.0
    )


def refusal(hello: Hello, expected: Expected | None = None) -> tuple[str, str]:
    server = make_server(expected)
    with pytest.raises(PeerRefusedError) as caught:
        server.receive_data(make_hello_frame(hello), 100.0)
    server.refuse(caught.value)
    client = BackboneLink(hello, Expected(roles=frozenset({"origin"})), client=True, now=100.0)
    told = lost_reason(client, b"".join(server.data_to_send(1000)))
    assert told == f"closed by peer: {caught.value.code}: {caught.value}"
    return caught.value.code, str(caught.value)


def test_hellos_are_exchanged_and_the_session_is_for_what_the_client_says() -> None:
    pair = Pair(purpose="control")
    assert isinstance(pair.at_pop[0], PeerAccepted)
    assert isinstance(pair.at_origin[0], PeerAccepted)
    assert pair.at_pop[0].hello.name == "ams"
    assert pair.at_origin[0].hello.purpose == "control"
    assert pair.origin.hello.purpose == "control"


def test_the_client_says_nothing_but_hello_before_the_answer() -> None:
    client = BackboneLink(make_hello(), Expected(roles=POPS), client=True, now=0.0)
    assert client.data_to_send(1000) == [make_hello_frame(make_hello())]
    with pytest.raises(AssertionError):
        client.send(DirectoryWanted(1))
    assert client.data_to_send(1000) == []


@pytest.mark.parametrize("proto", [0, PROTO - 1, PROTO + 1, 2**40])
def test_another_version_is_refused(proto: int) -> None:
    code, reason = refusal(make_hello(proto=proto))
    assert code == "version"
    assert reason == f"peer speaks backbone protocol {proto}, we speak {PROTO}"


@pytest.mark.parametrize(
    ("hello", "expected", "message"),
    [
        (make_hello("origin"), Expected(roles=POPS), "its role must be pop"),
        (make_hello("irs"), Expected(roles=frozenset({"pop", "origin"})), "must be origin or pop"),
        (make_hello(), Expected(roles=POPS, name="lon"), "we wanted lon"),
        (make_hello(), Expected(roles=POPS, certified=("pop", "lon")), "certificate says pop/lon"),
        (
            make_hello(),
            Expected(roles=POPS, certified=("irs", "fra1")),
            "certificate says irs/fra1",
        ),
        (make_hello(instance=make_hello("origin", "ams").instance), None, "this very process"),
    ],
)
def test_another_identity_is_refused(hello: Hello, expected: Expected | None, message: str) -> None:
    code, reason = refusal(hello, expected)
    assert code == "identity"
    assert message in reason


def test_a_certificate_that_says_the_same_is_accepted() -> None:
    server = make_server(Expected(roles=POPS, certified=("pop", "fra1")))
    assert server.receive_data(make_hello_frame(make_hello()), 100.0)


@pytest.mark.parametrize(
    ("window", "value", "fits"),
    [
        ("stream_window", WINDOW_BYTES_MIN, True),
        ("stream_window", WINDOW_BYTES_MIN - 1, False),
        ("stream_window", WINDOW_BYTES_MAX, True),
        ("stream_window", WINDOW_BYTES_MAX + 1, False),
        ("session_window", WINDOW_BYTES_MIN, True),
        ("session_window", WINDOW_BYTES_MIN - 1, False),
        ("session_window", WINDOW_BYTES_MAX + 1, False),
    ],
)
def test_windows_have_limits(window: str, value: int, fits: bool) -> None:
    fields: dict[str, object] = {window: value}
    hello = make_hello("pop", "fra1", **fields)
    if fits:
        assert make_server().receive_data(make_hello_frame(hello), 100.0)
    else:
        assert refusal(hello)[0] == "window"


def test_a_server_that_serves_something_else_is_refused() -> None:
    client = BackboneLink(
        make_hello(priority=PriorityClass.PARTNER),
        Expected(roles=frozenset({"origin"})),
        client=True,
        now=0.0,
    )
    with pytest.raises(PeerRefusedError, match="asked for a media session, got control"):
        client.receive_data(make_hello_frame(make_hello("origin", purpose="control")), 0.0)


def test_hello_comes_first_and_once() -> None:
    server = make_server()
    with pytest.raises(RemoteProtocolError, match="StreamAccepted before the hello"):
        server.receive_data(make_message_frame(StreamAccepted(1, 1)), 100.0)
    pair = Pair()
    with pytest.raises(RemoteProtocolError, match="a second hello"):
        pair.origin.receive_data(make_hello_frame(make_hello()), 100.0)


def test_media_has_no_place_on_a_control_session() -> None:
    pair = Pair(purpose="control")
    with pytest.raises(RemoteProtocolError, match="media frame 0x12 on a control session"):
        pair.origin.receive_data(make_frame(KIND_FRAGMENT, bytes(5)), 100.0)


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=80, deadline=None)
def test_garbage_raises_only_what_ends_a_session(garbage: bytes, greeted: bool) -> None:
    link = Pair().origin if greeted else make_server()
    with contextlib.suppress(RemoteProtocolError):
        link.receive_data(garbage, 100.0)
    link.data_to_send(1000)


@given(st.lists(st.integers(0, 2), max_size=8), st.data())
@settings(max_examples=8, deadline=None)
def test_any_split_gives_the_same_events(kinds: list[int], data: st.DataObject) -> None:
    def play(pair: Pair) -> list[object]:
        source = ListSource()
        stream_no = pair.open_stream(source)
        flow = pair.pop.sender._flows[stream_no]
        for seq, kind in enumerate(kinds):
            source.append(make_unit(seq, (10, 3000, 70_000)[kind]))
            pair.pop.sender.wake(flow)
            if kind == 0:
                pair.pop.send(DirectoryWanted(seq))
            pair.deliver_to_origin = b"".join(pair.pop.data_to_send(2**30))  # type: ignore[attr-defined]
            pair.at_origin += pair.deliver(pair.origin, pair.deliver_to_origin)  # type: ignore[attr-defined]
        messages = [e for e in pair.at_origin if isinstance(e, MessageReceived)]
        return [*pair.units(stream_no), *messages]

    split = Pair(cut=lambda left: data.draw(st.integers(1, max(1, min(left, 40_000)))))
    assert play(split) == play(Pair())


def test_messages_keep_their_place_among_the_units() -> None:
    pair = Pair()
    source = ListSource(tracks=[make_track(config_id=1)])
    source.append(make_unit(0), make_unit(1, config_id=1))
    stream_no = pair.open_stream(source)
    source.end_reason = "bye"
    pair.settle()
    order = [type(getattr(event, "message", event)).__name__ for event in pair.at_origin]
    assert order == [
        *("PeerAccepted", "StreamOpened", "UnitsReceived", "TrackChanged", "UnitsReceived"),
        "StreamClosed",
    ]
    last = pair.at_origin[-1]
    assert isinstance(last, MessageReceived)
    assert last.message == StreamClosed(stream_no, "bye", ended=True)


def test_messages_at_once_are_bounded() -> None:
    pair = Pair(purpose="control")
    one = make_message_frame(DirectoryWanted(1))
    assert len(pair.origin.receive_data(one * MESSAGES_PER_READ_MAX, 100.0)) > 0
    with pytest.raises(RemoteProtocolError, match="more than 10000 messages at once"):
        pair.origin.receive_data(one * (MESSAGES_PER_READ_MAX + 1), 100.0)


def test_a_closed_session_says_why_and_nothing_more() -> None:
    pair = Pair()
    pair.pop.close("drain", "x" * 2000)
    pair.pop.close("again", "no")
    pair.pop.send(DirectoryWanted(1))
    pair.pop.send_encoded(make_message_frame(DirectoryWanted(1)))
    data = b"".join(pair.pop.data_to_send(1000))
    assert lost_reason(pair.origin, data) == f"closed by peer: drain: {'x' * 1000}"


def closing_pair() -> tuple[Pair, int, bytes]:
    """The PoP has framed five units and the end of a stream, all of it in one read."""
    pair = Pair()
    source = ListSource()
    stream_no = pair.open_stream(source)
    pair.settle()
    source.append(*(make_unit(seq) for seq in range(5)))
    source.end_reason = "left"
    pair.pop.sender.wake(pair.pop.sender._flows[stream_no])
    return pair, stream_no, b"".join(pair.pop.data_to_send(2**26))


def test_what_came_in_the_same_read_as_the_close_comes_before_it() -> None:
    pair, stream_no, data = closing_pair()
    pair.pop.close("drain", "stopping")
    data += b"".join(pair.pop.data_to_send(0))
    events = pair.origin.receive_data(data + make_frame(KIND_FRAGMENT, bytes(5)), pair.now)
    assert [unit.seq for unit in units_of(events, stream_no)] == [0, 1, 2, 3, 4]
    assert events[1:] == [
        MessageReceived(StreamClosed(stream_no, "left", ended=True)),
        PeerClosed("closed by peer: drain: stopping"),
    ]
    assert pair.origin.receive_data(make_frame(KIND_FRAGMENT, bytes(5)), pair.now) == []


@pytest.mark.parametrize("cut", [0, 1])
def test_what_came_before_a_broken_frame_is_not_lost(cut: int) -> None:
    pair, stream_no, data = closing_pair()
    if cut:  # The units are not collected yet by the message that follows them.
        data = data[: -len(make_message_frame(StreamClosed(stream_no, "left", ended=True)))]
    with pytest.raises(RemoteProtocolError):
        pair.origin.receive_data(data + make_frame(KIND_FRAGMENT, bytes(5)), pair.now)
    events = pair.origin.take_events()
    assert [unit.seq for unit in units_of(events, stream_no)] == [0, 1, 2, 3, 4]
    assert len(events) == 2 - cut
    assert pair.origin.take_events() == []


def test_encoded_messages_go_as_they_are() -> None:
    pair = Pair(purpose="control")
    pair.pop.send_encoded(make_message_frame(DirectoryWanted(7)))
    pair.settle()
    assert pair.at_origin[-1] == MessageReceived(DirectoryWanted(7))
    assert pair.origin.statistics(100.0).messages_received == 1


def test_a_protocol_error_is_told() -> None:
    pair = Pair()
    pair.origin.refuse(RemoteProtocolError("no good"))
    assert lost_reason(pair.pop, b"".join(pair.origin.data_to_send(0))).endswith(
        "protocol: no good"
    )


def test_streams_are_closed_and_credit_goes_both_ways() -> None:
    pair = Pair()
    source = ListSource()
    stream_no = pair.open_stream(source)
    flow = pair.pop.sender._flows[stream_no]
    limit = flow.limit
    for seq in range(100):
        source.append(make_unit(seq, 60_000))
        pair.pop.sender.wake(flow)
        pair.settle()
    assert flow.limit > limit
    pair.pop.close_flow(flow, "enough")
    pair.settle()
    last = pair.at_origin[-1]
    assert isinstance(last, MessageReceived)
    assert last.message == StreamClosed(stream_no, "enough", ended=False)


# Liveness.


def test_round_trips_are_measured() -> None:
    pair = Pair()
    assert pair.pop.statistics(100.0).rtt_s == 0.0
    for rtt_s in (0.1, 0.3):
        pair.now = pair.pop.next_timeout()
        pair.pop.handle_timeout(pair.now)
        ping = b"".join(pair.pop.data_to_send(0))
        pair.now += rtt_s
        pair.deliver(pair.origin, ping)
        pair.deliver(pair.pop, b"".join(pair.origin.data_to_send(0)))
    statistics = pair.pop.statistics(pair.now)
    assert statistics.rtt_s == pytest.approx(0.0125 * 0.875 + 0.3 / 8)
    assert statistics.rtt_s_min == 0.0
    pair.deliver(pair.pop, make_token_frame(KIND_PONG, 999))
    assert pair.pop.statistics(pair.now).rtt_s == statistics.rtt_s


def test_unanswered_pings_are_bounded() -> None:
    pair = Pair()
    for _ in range(2 * PINGS_OUT_MAX):
        pair.now += PING_INTERVAL_S
        pair.deliver(pair.pop, make_token_frame(KIND_PING, 1))
        pair.pop.handle_timeout(pair.now)
    assert len(pair.pop._pings) == PINGS_OUT_MAX


def run_timers(pair: Pair, late_s: float) -> None:
    """Call the PoP's timer each time it is due, a little late, until that raises."""
    for _ in range(10):
        pair.now = pair.pop.next_timeout() + late_s
        pair.pop.handle_timeout(pair.now)
        assert pair.pop.next_timeout() > pair.now


def test_a_silent_peer_is_lost_at_the_limit() -> None:
    pair = Pair()
    started = pair.now
    with pytest.raises(PeerLostError, match=r"silent for 3\.0 s, allowed are 3"):
        run_timers(pair, 0.0)
    assert pair.now == started + SILENCE_S_MAX


def test_any_byte_shows_that_the_peer_lives() -> None:
    pair = Pair()
    for _ in range(20):
        pair.now = pair.pop.next_timeout()
        pair.deliver(pair.pop, b"\0")
        pair.pop.handle_timeout(pair.now)
        pair.deliver(pair.pop, b"\0\0\x08\x04" + bytes(8))


def test_a_late_timer_of_ours_convicts_nobody() -> None:
    pair = Pair()
    due = pair.pop.next_timeout()
    for late in (SILENCE_S_MAX + 5, 2 * SILENCE_S_MAX + 10):
        pair.pop.handle_timeout(due + late)
        assert pair.pop.next_timeout() > due + late
    statistics = pair.pop.statistics(due + late)
    assert statistics.late_timers == 2
    assert statistics.silence_s == 0
    # But once timers run in time again, silence counts.
    with pytest.raises(PeerLostError):
        run_timers(pair, LATE_S_MAX / 2)


def test_an_early_call_does_nothing() -> None:
    pair = Pair()
    pair.pop.handle_timeout(pair.now)
    assert pair.pop.data_to_send(0) == []


def test_a_peer_without_a_hello_is_lost_unless_we_slept() -> None:
    server = make_server()
    assert server.next_timeout() == 100 + HELLO_S_MAX
    server.handle_timeout(100 + HELLO_S_MAX + LATE_S_MAX * 2)
    assert server.next_timeout() == 100 + 2 * HELLO_S_MAX + LATE_S_MAX * 2
    with pytest.raises(PeerLostError, match="no hello within 5 s"):
        server.handle_timeout(server.next_timeout())


def test_deadlines_are_finite() -> None:
    assert Pair().origin.next_timeout() < math.inf
    assert link_module.SILENCE_S_MAX > PING_INTERVAL_S
