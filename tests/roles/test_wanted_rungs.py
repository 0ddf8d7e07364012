"""Which rungs are pushed to a PoP: as ordered, as asked, and as others get them from it."""

from edged.media.reach import Reach, ReachOrder
from edged.playback.hls import Channel
from edged.policy.reach_orders import ReachOrders
from edged.policy.rung_sieve import Rungs
from edged.policy.viewer_count import ASKED_S
from edged.roles.wanted_rungs import WANTED_MAX, Wanted, WantedRungs


class Server:
    """Relays x to whoever wants these."""

    def __init__(self) -> None:
        self.wanted: Rungs = frozenset()
        self.pops = 0

    def count(self, channel: str) -> int:
        return self.pops if channel == "x" else 0

    def rungs(self, channel: str) -> Rungs:
        assert channel == "x"
        return self.wanted


class Pop:
    def __init__(self) -> None:
        self.now = 100.0
        self.orders = ReachOrders()
        self.pushed: list[tuple[str, Wanted]] = []
        self.channels = {"x": Channel("x", self.now)}
        self.channels["x"].subscribed = True
        self.server = Server()
        self.wanted = WantedRungs(
            self.orders,
            channels=lambda: self.channels,
            push=lambda channel, rungs: self.pushed.append((channel, rungs)),
            now=lambda: self.now,
        )
        self.wanted.server = self.server

    def order(self, *rungs: str, hold: bool = True, ttl_s: float = 60.0) -> None:
        orders = (ReachOrder("x", hold=True, rungs=rungs),) if hold else ()
        number = self.orders.stamp[1] + 1
        self.orders.take(Reach(epoch=1, number=number, ttl_s=ttl_s, orders=orders), self.now)

    def look(self, after_s: float = 1.0) -> Wanted:
        self.now += after_s
        self.wanted.look(self.now)
        return self.pushed[-1][1]


def test_without_an_order_that_names_rungs_all_come() -> None:
    pop = Pop()
    assert pop.wanted.rungs("x") is None
    pop.order()
    assert pop.wanted.rungs("x") is None
    pop.wanted.look(pop.now)
    assert pop.pushed == []
    pop.order("v1")
    assert pop.wanted.rungs("x") == ("v1",)
    assert pop.wanted.seen("x") == ("v1",)
    pop.order()
    assert pop.look() is None
    assert pop.wanted.seen("x") is None


def test_what_a_viewer_asks_for_comes_at_once_and_goes_when_nobody_does() -> None:
    pop, count = Pop(), None
    pop.order("v1")
    assert pop.look() == ("v1",)
    count = pop.channels["x"].count
    count.note_asked("v0", pop.now)
    assert pop.pushed[-1] == ("x", ("v0", "v1"))
    pushed = len(pop.pushed)
    count.note_asked("v0", pop.now + 1)
    count.note_asked("v1", pop.now + 1)
    assert len(pop.pushed) == pushed, "it comes already"
    assert pop.look(ASKED_S) == ("v0", "v1")
    assert pop.look(2.0) == ("v1",)


def test_what_other_pops_are_to_get_from_here_comes_too() -> None:
    pop = Pop()
    pop.order("v1")
    pop.server.pops, pop.server.wanted = 2, frozenset({"v2"})
    pop.wanted.changed("x")
    assert pop.pushed == [("x", ("v1", "v2"))]
    pop.server.wanted = None
    pop.wanted.changed()
    assert pop.pushed[-1:] == [("x", None)]
    pop.server.wanted = frozenset({"v3"})
    pop.wanted.changed()
    assert pop.pushed[-1] == ("x", ("v1", "v3"))


def test_after_an_order_has_expired_a_channel_goes_on_by_what_is_asked() -> None:
    pop = Pop()
    pop.order("v1", ttl_s=5.0)
    assert pop.look() == ("v1",)
    pop.channels["x"].count.note_asked("v2", pop.now + 5)
    assert pop.look(6.0) == ("v2",)
    assert pop.look(ASKED_S + 1) == ("v2",), "nobody asks for any"
    pop.channels["x"].subscribed = False
    pop.look(2.0)
    assert pop.wanted.rungs("x") is None, "it begins anew"


def test_more_than_can_be_told_are_all() -> None:
    pop = Pop()
    pop.order("v1")
    for number in range(WANTED_MAX):
        pop.channels["x"].count.note_asked(f"w{number}", pop.now)
    assert pop.wanted.rungs("x") is None
    assert pop.wanted.seen("x") is None


def test_it_looks_once_a_second() -> None:
    pop = Pop()
    pop.order("v1")
    for _ in range(20):
        pop.look(0.1)
    assert len(pop.pushed) <= 3
