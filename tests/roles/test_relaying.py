"""What is taken from other PoPs, decided with parts and links that are fakes. The rest is e2e."""

import random
from collections.abc import Mapping

import pytest
from msgspec import Struct

from edged.backbone.fence import Fence
from edged.backbone.local_end import LocalEnd
from edged.backbone.relay_server import RelayServer
from edged.errors import ConfigError
from edged.media.reach import Reach, ReachOrder
from edged.media.stream import PriorityClass, StreamId
from edged.playback.hls import Channel
from edged.policy.reach_config import PopReachConfig
from edged.policy.reach_orders import ReachOrders
from edged.policy.relay_choice import AVOID_S
from edged.policy.relay_progress import ALIVE_S_MIN, FIRST_S_MAX, STALL_S_MIN
from edged.roles.relaying import GUESS_MBPS, SPECS, Relaying
from edged.runtime.metrics import Metrics
from edged.runtime.pump import Pump
from edged.runtime.supervision import Supervisor
from tests.policy.window_events import rendition

RELAYS = ("ams1/0", "lhr1/0")


class Parts:
    """Channels that come from where they are told to; what a relay brings is up to the test."""

    def __init__(self) -> None:
        self.relaying: Relaying | None = None
        self.here: dict[str, tuple[str, ...]] = {}
        self.went: list[str] = []
        self.hands_over = False
        self.rungs: dict[str, tuple[str, ...] | None] = {}

    def go(self, channel: str) -> None:
        assert self.relaying is not None
        relay = self.relaying.source(channel)
        before = self.here[channel][0]
        self.here[channel] = (relay or "fra1", *((before,) if self.hands_over else ()))
        self.went.append(channel)
        if relay:
            self.relaying.taker(channel, relay, lambda *_: None)

    def sources(self, channel: str) -> tuple[str, ...]:
        return self.here.get(channel, ())

    def received(self, channel: str) -> int:
        return 0

    def want_rungs(self, channel: str, rungs: tuple[str, ...] | None) -> None:
        self.rungs[channel] = rungs

    def priority(self, channel: str) -> PriorityClass | None:
        return PriorityClass.PARTNER if channel == "c1" else PriorityClass.BASIC


class Links:
    """Links that are up as the test says."""

    def __init__(self) -> None:
        self.up = set(RELAYS)
        self.lost = set[PriorityClass]()
        self.alive = set[str]()  # Heard, whatever comes.
        self.wanted: list[str] = []
        self.away_ms: dict[str, float] = {}

    def keep(
        self, wanted: Mapping[str, None], addresses: Mapping[str, str], used: set[str], now: float
    ) -> None:
        self.wanted = list(wanted)

    def is_up(self, relay: str, priority: PriorityClass | None) -> bool:
        return relay in self.up and priority not in self.lost

    def is_alive(self, relay: str, now: float) -> bool:
        return relay in self.alive

    def ms(self, relay: str) -> float | None:
        return self.away_ms.get(relay)

    def down_why(self, relay: str) -> str:
        return "" if relay in self.up else "certificate verify failed"

    def peers(self) -> dict[str, float]:
        return self.away_ms


class Clock:
    """Whose time the test sets."""

    time = 100.0

    def now(self) -> float:
        return self.time


class Made(Struct):
    relaying: Relaying
    parts: Parts
    links: Links
    orders: ReachOrders
    clock: Clock
    channels: dict[str, Channel]

    def order(self, *channels: str, relay: str = "ams1/0", ttl_s: float = 600.0) -> None:
        orders = tuple(ReachOrder(channel, via=relay) for channel in channels)
        reach = Reach(epoch=1, number=self.orders.stamp[1] + 1, ttl_s=ttl_s, orders=orders)
        assert self.orders.take(reach, self.clock.time) == ""

    def tick(self, after_s: float = 0.1, *, brings: bool = True) -> None:
        """A turn later; what relays bring has come meanwhile, or not."""
        self.clock.time += after_s
        for taker in self.relaying._takers.values() if brings else ():
            taker(StreamId("x", 1), rendition())
        self.relaying.tick(self.clock.time)

    @property
    def relayed(self) -> int:
        return sum("/" in sources[0] for sources in self.parts.here.values())


def make(count: int = 3, **limits: float) -> Made:
    parts, links, orders, clock = Parts(), Links(), ReachOrders(), Clock()
    channels = {f"c{number}": Channel(f"c{number}", 0.0) for number in range(count)}
    parts.here = dict.fromkeys(channels, ("fra1",))
    relaying = Relaying(
        PopReachConfig(**limits),  # type: ignore[arg-type] # some are whole numbers
        orders,
        parts,
        channels=lambda: channels,
        origin_of=lambda _: "fra1",
        origin_ms=lambda _: 80.0,
        pump=Pump(),
        now=clock.now,
        local=LocalEnd(role="pop", name="sin1", instance=1),
        fence=Fence(),
        client_tls=None,
        server_tls=None,
        supervisor=Supervisor("pop sin1"),
        rng=random.Random(1),  # noqa: S311 - a test's chance
    )
    relaying.links = links  # type: ignore[assignment] # as far as it is asked
    parts.relaying = relaying
    return Made(relaying, parts, links, orders, clock, channels)


def test_channels_go_where_they_are_ordered_and_back_when_the_order_is_over() -> None:
    made = make()
    made.order("c0", "c1", ttl_s=10.0)
    made.tick()
    assert [sources[0] for sources in made.parts.here.values()] == ["ams1/0", "ams1/0", "fra1"]
    made.order("c0", "c1", relay="lhr1/0", ttl_s=10.0)
    made.tick()
    assert made.relaying.source("c0") == "lhr1/0"
    made.tick(10.1)
    assert made.relayed == 0, "they have expired"
    made.order("c0", ttl_s=10.0)
    made.tick()
    assert made.relayed == 1, "and come into force again"


@pytest.mark.parametrize("how", ["silent", "lost"])
def test_when_a_relay_goes_its_channels_leave_in_paced_steps_the_watched_first(how: str) -> None:
    made = make(60, changes_per_s=10.0)
    made.order(*made.channels)
    for _ in range(100):
        made.tick()
    assert made.relayed == 60
    watched = {"c7", "c31"}
    for name in watched:
        made.channels[name].count.note_released(9, made.clock.time)
    made.parts.went.clear()
    if how == "lost":
        made.links.up.clear()
    counts = []
    for _ in range(80):
        before = len(made.parts.went)
        for name in watched:
            made.channels[name].count.note_released(9, made.clock.time)
        made.tick(brings=False)
        counts.append(len(made.parts.went) - before)
    assert set(made.parts.went[:2]) == watched
    assert max(counts) <= 10, "a second's worth at once at most"
    assert max(sum(counts[at : at + 10]) for at in range(70)) <= 21
    assert made.relayed == 0
    rest = made.parts.went[2:]
    assert rest != sorted(rest), "in an order by chance"
    assert list(made.relaying.avoided()) == ["ams1/0"]


def test_a_channel_that_stops_alone_leaves_alone() -> None:
    made = make()
    made.order("c0", "c1")
    made.tick()
    for _ in range(20):
        made.clock.time += 0.2
        for (name, _), taker in list(made.relaying._takers.items()):
            if name == "c1" or made.clock.time < 101:
                taker(StreamId(name, 1), rendition())
        made.relaying.tick(made.clock.time)
    assert [sources[0] for sources in made.parts.here.values()] == ["fra1", "ams1/0", "fra1"]
    assert list(made.relaying.avoided()) == ["ams1/0 c0"]
    (one, other) = made.relaying.seen()
    assert one.why == "avoided: nothing came of it any more"
    assert (other.source, other.ordered, other.why) == ("ams1/0", "ams1/0", "")


def test_a_relay_that_brings_nothing_at_first_is_given_up() -> None:
    made = make()
    made.order("c0")
    made.tick()
    made.tick(FIRST_S_MAX - 0.1, brings=False)
    assert made.relayed == 1
    made.tick(0.2, brings=False)
    assert made.relayed == 0
    made.tick(AVOID_S - 1)
    assert made.relayed == 0
    made.tick(AVOID_S + 2)
    assert made.relayed == 1, "and tried again later"


def test_a_publisher_s_pause_is_no_silence_of_a_relay_that_is_heard() -> None:
    made = make(1)
    made.order("c0")
    for _ in range(20):
        made.tick()
    made.links.alive.add("ams1/0")
    made.tick(STALL_S_MIN + 0.1, brings=False)
    assert made.relayed == 1
    made.tick(ALIVE_S_MIN - STALL_S_MIN, brings=False)
    assert made.relayed == 0
    assert list(made.relaying.avoided()) == ["ams1/0 c0"], "it may be that channel alone"


def test_our_own_pause_is_no_silence_of_theirs() -> None:
    made = make()
    made.order("c0")
    made.tick()
    made.clock.time += 5.0
    for taker in made.relaying._takers.values():
        taker.progress.slept(made.clock.time)
    made.tick(brings=False)
    assert made.relayed == 1


def test_a_channel_that_is_just_handed_over_is_left_alone_unless_it_fails() -> None:
    made = make(1)
    made.parts.hands_over = True
    made.order("c0")
    made.tick()
    made.order("c0", relay="lhr1/0")
    made.tick()
    assert made.parts.sources("c0")[0] == "ams1/0"
    made.links.up.clear()
    made.tick()
    assert made.parts.sources("c0")[0] == "fra1"


def test_no_more_come_from_relays_than_may() -> None:
    made = make(5, relayed_max=2)
    made.order(*made.channels)
    for _ in range(5):
        made.tick()
    assert made.relayed == 2
    why = {seen.why for seen in made.relaying.seen() if seen.source == "fra1"}
    assert why == {"2 channels come from relays already"}
    made.relaying.reconfigure(PopReachConfig(relayed_max=1))
    made.tick()
    assert made.relayed == 1, "those beyond the limit leave"


def test_what_is_not_here_is_not_gone_for() -> None:
    made = make(1)
    made.order("c0", "nobody")
    made.tick()
    assert made.parts.went == ["c0"]
    del made.parts.here["c0"]
    made.tick()
    assert made.relaying.source("c0") == "", "it begins at its origin when it is watched again"
    assert {seen.why for seen in made.relaying.seen()} == {"it is not here"}


def test_a_pop_that_drains_takes_nothing_from_relays() -> None:
    made = make(1)
    made.order("c0")
    made.tick()
    made.relaying.draining = True
    made.tick()
    assert made.relayed == 0
    assert made.relaying.relays_max == 0


def test_a_relay_that_is_farther_is_left() -> None:
    made = make(1)
    made.order("c0")
    made.tick()
    made.links.away_ms["ams1/0"] = 90.0
    made.tick()
    assert made.relayed == 0
    (seen,) = made.relaying.seen()
    assert seen.why == "90.0 ms away, the origin 80.0 ms"
    assert made.relaying.peers() == {"ams1/0": 90.0}


def test_one_that_refuses_is_not_asked_again_at_once() -> None:
    made = make(1)
    made.order("c0")
    made.tick()
    made.relaying.ended("c0", "ams1/0", "no_relay: the PoP drains")
    assert made.relaying.source("c0") == ""
    made.tick()
    assert made.relaying.source("c0") == ""
    assert next(iter(made.relaying.avoided().values())).startswith("no_relay: the PoP drains")


def test_without_a_listener_nothing_is_relayed() -> None:
    made = make()
    made.relaying.shown(StreamId("c0", 1), [rendition()])
    made.relaying.gone("c0", "over")
    assert made.relaying.relayed_on() == {}
    assert made.relaying.relays_max == 0
    metrics = Metrics()
    made.order("c0")
    made.tick()
    made.relaying.register(metrics, role="pop sin1")
    text = metrics.render().decode()
    for spec in SPECS:
        assert spec.name in text
    assert 'edged_reach_relayed{role="pop sin1"} 1' in text
    assert 'to="relay",why="ordered"' in text


def test_what_was_taken_since_the_last_measurement_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = make(1, listen="127.0.0.1:0", relay_mbps_max=50.0)  # type: ignore[arg-type]
    server = made.relaying.server
    assert server is not None
    taken = [0]
    monkeypatch.setattr(RelayServer, "subscriptions", property(lambda _: taken[0]))
    while not made.relaying.why_not("c0"):
        taken[0] += 1
        assert taken[0] <= 50 / GUESS_MBPS
    assert made.relaying.why_not("c0") == "50 Mbps are relayed already"
    made.tick()
    assert made.relaying.why_not("c0") == "", "measured it is nothing"


def test_a_session_that_is_lost_moves_the_channels_of_its_class_alone() -> None:
    made = make()
    made.order("c0", "c1", "c2")
    made.tick()
    made.links.lost.add(PriorityClass.PARTNER)
    made.tick()
    assert [sources[0] for sources in made.parts.here.values()] == ["ams1/0", "fra1", "ams1/0"]
    assert list(made.relaying.avoided()) == ["ams1/0 c1"]


def test_200_watched_channels_leave_a_relay_that_is_lost_at_the_usual_pace() -> None:
    made = make(200)
    made.order(*made.channels)
    for _ in range(80):
        made.tick()
    assert made.relayed == 200
    for channel in made.channels.values():
        channel.count.note_released(9, made.clock.time)
    made.links.up.clear()
    began = made.clock.time
    while made.relayed:
        made.tick(brings=False)
    assert 2.5 < made.clock.time - began < 3.5, "README says so"


def test_plain_tcp_beyond_loopback_is_refused() -> None:
    made = make()
    with pytest.raises(ConfigError, match="relay"):
        RelayServer(
            Pump(),
            made.relaying,
            local=LocalEnd(role="pop", name="sin1", instance=1),
            listen="0.0.0.0:1950",
            tls=None,
        )


def test_a_new_taker_forgets_the_progress_of_another_relay() -> None:
    made = make()
    one = made.relaying.taker("c0", "ams1/0", lambda *_: None)
    taken: list[object] = []
    again = made.relaying.taker("c0", "ams1/0", lambda _, event: taken.append(event))
    assert one is again
    again(StreamId("c0", 1), rendition())
    assert taken == [rendition()]
    assert made.relaying.taker("c0", "lhr1/0", lambda *_: None) is not one
