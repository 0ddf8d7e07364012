"""A real client (python-hyper's `h2`) against the session: random scripts, all bodies arrive."""

import random
from collections.abc import Iterable

import h2.config
import h2.connection
import h2.events
import h2.settings
import hypothesis
import pytest
from hypothesis import strategies as st

from edged.wire.h2.events import SessionEnded
from edged.wire.h2.head import H2Request
from edged.wire.h2.responses import make_block
from edged.wire.h2.session import H2Session

WINDOW = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
FRAME = h2.settings.SettingCodes.MAX_FRAME_SIZE
TABLE = h2.settings.SettingCodes.HEADER_TABLE_SIZE
FRAME_MAX = 50_000
SIZES = (0, 1, 100, 2000, 16383, 16384, 16385, 40_000, 100_000)
POSTED = (0, 1, 5000, 16384, 30_000)


def body_of(size: int) -> list[bytes]:
    """A body in uneven pieces that tell their place."""
    whole = b"".join(at.to_bytes(4, "big") for at in range(size // 4 + 1))[:size]
    cuts = (0, size // 7, size // 7, size // 2)
    return [whole[a:b] for a, b in zip(cuts, (*cuts[1:], size), strict=True)]


class Play:
    """Client and session, and bytes between them that are cut anywhere."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - to be the same again
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.client.initiate_connection()
        self.session = H2Session(now=0.0)
        self.settled = False  # `h2` takes one acknowledgement for all SETTINGS on their way.
        self.waiting: list[tuple[int, int]] = []  # Streams to be answered, and with how much.
        self.sizes: dict[int, int] = {}  # What was asked for.
        self.posted: dict[int, bytes] = {}
        self.got: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.cancelled: set[int] = set()
        self.unacknowledged: list[tuple[int, int]] = []
        self.to_session = b""
        self.to_client = b""
        if self.rng.random() < 0.5:
            self.settle({WINDOW: self.rng.choice((0, 1, 100, 5000, 1 << 20))})

    def settle(self, settings: dict[h2.settings.SettingCodes | int, int]) -> None:
        """Change settings, once those before are acknowledged."""
        while not self.settled:
            self.move(1 << 20)
        self.settled = False
        self.client.update_settings(settings)

    def step(self) -> None:
        """One thing of many happens."""
        what = self.rng.random()
        if what < 0.15 and len(self.sizes) < 12:
            self.ask()
        elif what < 0.2 and self.sizes:
            self.cancel(self.rng.choice(list(self.sizes)))
        elif what < 0.25:
            key, values = self.rng.choice(
                [
                    (WINDOW, (0, 3, 1000, 70_000)),
                    (TABLE, (0, 100, 4096, 65_536)),
                    (FRAME, (16_384, FRAME_MAX)),
                ]
            )
            self.settle({key: self.rng.choice(values)})
        elif what < 0.3:
            self.client.ping(self.rng.randbytes(8))
        elif what < 0.5 and self.waiting:
            self.answer(self.rng.randrange(len(self.waiting)))
        elif what < 0.7:
            self.acknowledge()
        else:
            self.move(self.rng.choice((1, 9, 100, 5000, 1 << 20)))

    def ask(self) -> None:
        stream_id = self.client.get_next_available_stream_id()
        size = self.rng.choice(SIZES)
        fields = [(":authority", "edge"), (":scheme", "https"), (":path", f"/{size}?n={stream_id}")]
        fields += [("x-filler", "f" * self.rng.choice((0, 20, 3000)))]
        if self.rng.random() < 0.6:
            fields.append(("priority", self.rng.choice(("u=0", "u=5, i", "i", "u=3"))))
        self.sizes[stream_id] = size
        self.got[stream_id] = bytearray()
        posted = self.rng.choice(POSTED) if self.rng.random() < 0.3 else None
        method = "GET" if posted is None else "POST"
        self.client.send_headers(
            stream_id, [(":method", method), *fields], end_stream=posted is None
        )
        self.posted[stream_id] = b""
        room = self.client.local_flow_control_window(stream_id)
        if posted is not None:
            self.posted[stream_id] = body = bytes(min(posted, room))
            for at in range(0, len(body), 16_000):
                self.client.send_data(
                    stream_id,
                    body[at : at + 16_000],
                    pad_length=self.rng.choice((None, 5)) if room > len(body) + 50 else None,
                )
            self.client.end_stream(stream_id)

    def cancel(self, stream_id: int) -> None:
        if stream_id not in self.ended | self.cancelled:
            self.client.reset_stream(stream_id)
            self.cancelled.add(stream_id)

    def answer(self, at: int) -> None:
        stream_id, size = self.waiting.pop(at)
        block = make_block(200, [("Content-Length", f"{size}")])
        self.session.respond(stream_id, block, body_of(size), now=0.0)

    def acknowledge(self) -> None:
        left, self.unacknowledged = self.unacknowledged, []
        for stream_id, size in left:
            self.client.acknowledge_received_data(size, stream_id)

    def move(self, count: int) -> None:
        """Some bytes go either way."""
        self.to_session += self.client.data_to_send()
        data, self.to_session = self.to_session[:count], self.to_session[count:]
        for event in self.session.receive_data(memoryview(data), 0.0) if data else ():
            assert not isinstance(event, SessionEnded), event
            if isinstance(event, H2Request):
                assert event.request.body == self.posted[event.stream_id]
                assert event.request.query == f"n={event.stream_id}"
                self.waiting.append((event.stream_id, int(event.request.path[1:])))
        if self.session.wants_output:
            chunks = self.session.take(count)
            self.to_client += b"".join(chunks)
            assert sum(map(len, chunks)) <= count + 2 * 16_384 + 9000
        data, self.to_client = self.to_client[:count], self.to_client[count:]
        # `h2` minds its own change of this only with the next bytes; test_sending looks at it.
        self.client.max_inbound_frame_size = FRAME_MAX
        self.hear(self.client.receive_data(data) if data else ())

    def hear(self, events: Iterable[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self.got[event.stream_id] += event.data
                self.unacknowledged.append((event.stream_id, event.flow_controlled_length))
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.SettingsAcknowledged):
                self.settled = True
            assert not isinstance(event, h2.events.ConnectionTerminated | h2.events.StreamReset)

    def finish(self) -> None:
        """All windows open, and all is answered."""
        self.settle({WINDOW: 70_000})
        for stream_id in set(self.sizes) - self.ended - self.cancelled:
            # `h2` gives window with data only: where SETTINGS have lowered it there are none.
            self.client.increment_flow_control_window(1 << 20, stream_id)
        for _ in range(2000):
            self.acknowledge()
            self.move(1 << 20)
            while self.waiting:
                self.answer(0)
            if self.ended | self.cancelled == set(self.sizes):
                break
        for stream_id, size in self.sizes.items():
            if stream_id not in self.cancelled:
                assert self.got[stream_id] == b"".join(body_of(size))
        self.acknowledge()
        for _ in range(3):
            self.move(1 << 20)
        assert self.session.statistics().unanswered == 0
        assert not self.session.wants_output


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.integers(0, 1 << 60), st.integers(1, 150))
def test_all_bodies_arrive(seed: int, steps: int) -> None:
    play = Play(seed)
    for _ in range(steps):
        play.step()
    play.finish()


@pytest.mark.slow
def test_all_bodies_arrive_for_long() -> None:
    for seed in range(1000):
        play = Play(seed)
        for _ in range(400):
            play.step()
        play.finish()
