"""No move is planned that a PoP's rules forbid, nor more than it has streams that they let go."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import hypothesis
from hypothesis import strategies as st

from edged.errors import RouteUnavailableError
from edged.media.routing import (
    Match,
    OriginReport,
    OriginRow,
    OriginState,
    ReportedState,
    RouteRequest,
    RoutingTable,
    Rule,
)
from edged.media.stream import PriorityClass
from edged.policy.flows import LinkLimit
from edged.policy.migration import Migration
from edged.policy.move_refusals import RefusedMove
from edged.policy.move_rows import MoveRow, find_rows
from edged.policy.moves import MoveInputs, UnitMoves
from edged.policy.planner import OriginSupply, PopDemand
from edged.policy.pop_needs import BoundDemand, bound_demand
from edged.policy.pop_view import PopView
from edged.policy.routing_table import choose_target

NAMES = ("o0", "o1", "o2", "o3")
NAMED = st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple)
MATCHES = st.builds(
    Match,
    channel=st.sampled_from(["", "", "alice", "bob"]),
    tag=st.sampled_from(["", "", "e:1"]),
    class_=st.sampled_from([None, None, "partner", "basic"]),
)
RULES = st.builds(
    Rule,
    match=MATCHES,
    prefer=NAMED,
    avoid=NAMED,
    group_by=st.sampled_from(["", "", "e:"]),
    anti_affinity=st.sampled_from(["", "", "p:"]),
    max_rtt_ms=st.sampled_from([None, None, 25.0]),
) | st.builds(Rule, match=MATCHES, pin=st.sampled_from([*NAMES, "gone"]))
REQUESTS = st.builds(
    RouteRequest,
    channel=st.sampled_from(["alice", "bob", "amy"]),
    priority=st.sampled_from(PriorityClass),
    tags=st.sampled_from([(), ("e:1",), ("e:2",), ("p:1",), ("e:1", "p:1")]),
)
Placed = tuple[str, RouteRequest]
PLACED = st.lists(st.tuples(st.sampled_from(NAMES), REQUESTS), max_size=14)


def make_view(pop: str, rules: Sequence[Rule], placed: Sequence[Placed]) -> PopView:
    """With room everywhere; the first two origins are in one failure domain."""
    view = PopView(pop)
    rows = tuple(
        OriginRow(name, f"{name}:1", OriginState.UP, domain="rack" if name < "o2" else "")
        for name in NAMES
    )
    table = RoutingTable(
        epoch=1, version=1, issued=0.0, ttl_s=30.0, lease_ttl_s=10.0, rows=rows, rules=tuple(rules)
    )
    view.accept_table(table, 0.0)
    for place, name in enumerate(NAMES):
        view.set_link(name, up=True, now=0.0)
        view.observe_rtt(name, 10.0 * (place + 1) if pop == "lhr" else 10.0 * (4 - place))
        view.heartbeat(OriginReport(name, 1, ReportedState.UP, 1000, (900, 900, 900)), 0.0)
    for origin, request in placed:
        view.placed(origin, request)
    return view


def demand_of(view: PopView) -> PopDemand:
    """As IRS has it of what the PoP tells."""
    told = view.take_telemetry()
    return PopDemand(
        pop=f"{view.pop}/0",
        units=told.units,
        rtt_ms={name: probe.rtt_ms for name, probe in told.probes.items()},
        bound=tuple(bound_demand(each, 0.0) for each in told.bound),
    )


@st.composite
def inputs_of(draw: st.DrawFn, views: Sequence[PopView]) -> MoveInputs:
    drained = draw(st.sampled_from([*NAMES, None, None]))
    pairs = [(view.pop, name) for view in views for name in NAMES]
    links = tuple(
        LinkLimit(
            name=name,
            mbps=float(draw(st.integers(0, 12))),
            mbps_per_unit=1.0,
            pairs=tuple(draw(st.lists(st.sampled_from(pairs), max_size=6, unique=True))),
        )
        for name in ("cable", "dish")[: draw(st.integers(0, 2))]
    )
    return MoveInputs(
        origins=[
            OriginSupply(
                origin=name,
                address=f"{name}:1",
                state=OriginState.DRAIN if name == drained else OriginState.UP,
                slots_total=1000,
                room=(draw(st.integers(0, 9)),) * 3,
            )
            for name in NAMES
        ],
        pops=[demand_of(view) for view in views],
        links=links,
        budget=draw(st.integers(1, 30)),
        reserve_fraction=0.0,
        gain_ms_min=5.0,
        drains=True,
        rules=True,
    )


def accepted(view: PopView, placed: Placed, to: str) -> bool:
    origin, request = placed
    try:
        choose_target(request, view, 0.0, at=origin, to=to)
    except RouteUnavailableError:
        return False
    return True


def who_goes(view: PopView, placed: Sequence[Placed], moves: Sequence[UnitMoves]) -> dict[int, str]:
    """Which stream makes which move, each accepted by its PoP; as many as can be found."""
    wanted = [
        move for move in moves if move.pop.startswith(f"{view.pop}/") for _ in range(move.units)
    ]
    goes: dict[int, int] = {}  # Stream -> place in `wanted`.

    def find(order: int, tried: set[int]) -> bool:
        move = wanted[order]
        for stream, (origin, request) in enumerate(placed):
            if (origin, request.priority) != (move.from_origin, move.priority) or stream in tried:
                continue
            if not accepted(view, placed[stream], move.to_origin):
                continue
            tried.add(stream)
            if stream not in goes or find(goes[stream], tried):
                goes[stream] = order
                return True
        return False

    for order in range(len(wanted)):
        find(order, set())
    return {stream: wanted[order].to_origin for stream, order in goes.items()}


@hypothesis.given(st.lists(RULES, max_size=3), st.lists(PLACED, min_size=1, max_size=2), st.data())
@hypothesis.settings(max_examples=300, deadline=None)
def test_a_pop_accepts_every_move_that_is_planned_for_as_many_streams(
    rules: list[Rule], placed: list[list[Placed]], data: st.DataObject
) -> None:
    views = [
        make_view(pop, rules, streams) for pop, streams in zip(("lhr", "ams"), placed, strict=False)
    ]
    moves = Migration().plan(data.draw(inputs_of(views)).problem())
    for view, streams in zip(views, placed, strict=True):
        goes = who_goes(view, streams, moves)
        assert len(goes) == sum(each.units for each in moves if each.pop == f"{view.pop}/0")


GENERAL = st.builds(
    Rule,
    prefer=NAMED,
    avoid=NAMED,
    group_by=st.sampled_from(["", "e:"]),
    anti_affinity=st.sampled_from(["", "p:"]),
)
APART = st.builds(
    RouteRequest,
    channel=st.sampled_from(["bob", "amy"]),
    priority=st.sampled_from(PriorityClass),
    tags=st.sampled_from([(), ("e:1",), ("p:1",), ("p:2",)]),
) | st.builds(RouteRequest, channel=st.just("alice"))


def can_be_made(view: PopView, placed: Sequence[Placed], wanted: Sequence[UnitMoves]) -> bool:
    """Whether some streams make these moves, in this order, each as the PoP is by then."""
    if not wanted:
        return True
    move = wanted[0]
    for stream in dict.fromkeys(placed):
        origin, request = stream
        if (origin, request.priority) != (move.from_origin, move.priority):
            continue
        if not accepted(view, stream, move.to_origin):
            continue
        view.placed(move.to_origin, request)
        view.released(origin, request)
        others = list(placed)
        others.remove(stream)
        made = can_be_made(view, others, wanted[1:])
        view.placed(origin, request)
        view.released(move.to_origin, request)
        if made:
            return True
    return False


@hypothesis.given(
    GENERAL, st.lists(st.tuples(st.sampled_from(NAMES), APART), max_size=7), st.data()
)
@hypothesis.settings(max_examples=200, deadline=None)
def test_they_can_be_made_one_after_the_other(
    rule: Rule, placed: list[Placed], data: st.DataObject
) -> None:
    """What one move does to a group, or to those that are to be apart, forbids no other."""
    view = make_view("lhr", [Rule(match=Match(channel="alice"), pin="o1"), rule], placed)
    moves = Migration().plan(data.draw(inputs_of([view])).problem())
    wanted = [move for move in moves for _ in range(move.units)]
    assert can_be_made(view, placed, wanted)


def test_an_origin_may_have_any_name() -> None:
    pop = PopDemand(
        pop="a/0",
        units={"o1": (0, 0, 3)},
        bound=(
            BoundDemand(first=("nowhere",), units={"o1": (0, 0, 1)}),
            BoundDemand(first=("o1",), units={"o1": (0, 0, 1)}),
        ),
    )
    names = ["nowhere", "o1", "o2"]
    rows = find_rows([pop], names, frozenset(names))
    assert len({row.label for row in rows}) == len(rows) == 3


UNITS = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
PLACES = st.sampled_from([*NAMES[:3], "gone"])
BY_PLACE = st.dictionaries(PLACES, UNITS, max_size=3)
BOUNDS = st.builds(
    lambda first, then, units, firm, fixed: BoundDemand(
        first=tuple(sorted(first)),
        then=tuple(sorted(then - first)),
        units=units,
        firm=firm,
        fixed=fixed,
    ),
    st.sets(PLACES, max_size=2), st.sets(PLACES, max_size=2), BY_PLACE, BY_PLACE, BY_PLACE,
)  # fmt: skip
SHARDS = st.builds(
    PopDemand,
    pop=st.sampled_from(["a/0", "a/1", "b/0"]),
    units=st.dictionaries(PLACES, UNITS),
    bound=st.lists(BOUNDS, max_size=3, unique_by=lambda each: (each.first, each.then)).map(tuple),
)
REFUSED = st.builds(
    RefusedMove, st.sampled_from(["a/0", "b/0"]), PLACES, PLACES, st.sampled_from(["", "basic"])
)


@hypothesis.given(
    st.lists(SHARDS, min_size=1, max_size=3, unique_by=lambda shard: shard.pop),
    st.sets(st.sampled_from(NAMES[:3])),
    st.lists(REFUSED, max_size=3),
    st.integers(0, 3),
)
def test_rows_are_the_whole_and_go_nowhere_that_was_refused(
    shards: list[PopDemand], open_: set[str], refused: list[RefusedMove], most: int
) -> None:
    """Whatever is told, be it more than there is."""
    origins = list(NAMES[:3])
    rows = find_rows(shards, origins, frozenset(open_), refused, most=most)
    assert len({row.label for row in rows}) == len(rows)
    of_shard: dict[str, list[MoveRow]] = defaultdict(list)
    for row in rows:
        of_shard[row.shard].append(row)
    bound = [row for row in rows if row.allowed]
    assert len(bound) <= most
    for shard in shards:
        for place, origin in enumerate(origins):
            there = Counter[int]()
            for row in of_shard[shard.pop]:
                there.update(dict(enumerate(row.placed[place])))
            told = shard.units.get(origin, (0, 0, 0))
            assert tuple(there[k] for k in range(3)) == told
    for each in refused:
        for row in of_shard[each.pop]:
            if row.allowed is not None and each.to_origin not in row.allowed:
                continue
            if each.to_origin not in open_ or each.from_origin not in origins:
                continue
            if each.from_origin == each.to_origin:
                continue
            units = row.placed[origins.index(each.from_origin)]
            assert not (any(units) if each.class_ == "" else units[PriorityClass.BASIC])


def test_what_is_where_alone_it_may_be_is_fixed_and_the_rest_by_where_it_may_go() -> None:
    pinned = BoundDemand(first=("o0",), units={"o0": (0, 0, 3), "o1": (0, 0, 2)})
    liked = BoundDemand(first=("o2",), then=("o0", "o1"), units={"o0": (1, 0, 0)})
    group = BoundDemand(
        first=("o1",), then=("o0", "o2"), units={"o0": (0, 4, 0)}, firm={"o0": (0, 3, 0)},
        fixed={"o0": (0, 1, 0)},
    )  # fmt: skip
    units = {"o0": (1, 4, 9), "o1": (0, 0, 2)}
    shard = PopDemand(pop="a/0", units=units, bound=(pinned, liked, group))
    rows = find_rows([shard], NAMES[:3], frozenset(NAMES[:3]))
    none = (0, 0, 0)
    assert [(row.label, row.placed) for row in rows] == [
        ("a/0", [(0, 0, 6), none, none]),
        ("a/0 to o0", [none, (0, 0, 2), none]),
        ("a/0 to o0,o1,o2, last to o0,o1", [(1, 0, 0), none, none]),
        ("a/0 to o1", [(0, 3, 0), none, none]),
        ("a/0 that stay", [(0, 1, 3), none, none]),
    ]
    one, other = find_rows([shard], NAMES[:3], frozenset(NAMES[:3]), most=0)
    assert other.label == "a/0 that stay"
    assert other.placed == [(1, 4, 3), (0, 0, 2), none]
    assert one.placed == [(0, 0, 6), none, none]
