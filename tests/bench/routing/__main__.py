"""What one routing decision costs: `python -m tests.bench.routing`.

Each case is timed call by call; the timer's own cost is measured and subtracted. The goal is for
decisions by lease: by price every origin is weighed.
"""

import gc
import sys
import time
from collections.abc import Callable

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
from edged.policy.pop_view import PopView
from edged.policy.routing_table import choose_origin
from tests.bench.goals import exit_status, verdict

CALLS = 100_000
GOAL_US = 2.0  # p99
ORIGINS = 10
NAMES = [f"o{n}" for n in range(ORIGINS)]
PINS = tuple(Rule(match=Match(channel=f"c{n}"), pin="o3") for n in range(900))


def make_view(quotas: list[int], rules: tuple[Rule, ...] = ()) -> PopView:
    """Ten origins at 10, 20, ... ms with these leases, all connected and half full."""
    rows = tuple(
        OriginRow(name, f"{name}:1941", OriginState.UP, quota)
        for name, quota in zip(NAMES, quotas, strict=True)
    )
    view = PopView("lhr")
    table = RoutingTable(
        epoch=1, version=1, issued=0.0, ttl_s=30.0, lease_ttl_s=10.0, rows=rows, rules=rules
    )
    view.accept_table(table, 0.0)
    for place, name in enumerate(NAMES, 1):
        view.set_link(name, up=True, now=0.0)
        view.observe_rtt(name, 10.0 * place)
        view.heartbeat(OriginReport(name, 1, ReportedState.UP, 1000, (500, 500, 500)), 0.0)
    return view


def measure(call: Callable[[], object]) -> tuple[float, float, float]:
    """Microseconds: median, p99, p99.9."""
    samples = []
    clock = time.perf_counter_ns
    gc.collect()
    gc.disable()
    try:
        for _ in range(CALLS):
            started = clock()
            call()
            samples.append(clock() - started)
    finally:
        gc.enable()
    samples.sort()
    return tuple(samples[int(CALLS * share)] / 1000 for share in (0.5, 0.99, 0.999))  # type: ignore[return-value]


def main() -> int:
    """Print a table of cases; the exit status says whether the goal was reached."""
    plenty, empty = [10**6] * ORIGINS, [0] * ORIGINS
    request = RouteRequest(channel="alice", protocol="rtmp")
    pinned = RouteRequest(channel="c899", protocol="rtmp")
    cases: list[tuple[str, PopView, RouteRequest]] = [
        ("plain: the nearest has room", make_view(plenty), request),
        ("plain: the tenth has room", make_view([0] * 9 + [10**6]), request),
        ("900 pins, none matches", make_view(plenty, PINS), request),
        ("900 pins, the last matches", make_view(plenty, PINS), pinned),
        ("price: no lease has room", make_view(empty), request),
    ]
    base = measure(lambda: None)[0]
    by_lease_us: list[float] = []
    print(f"{'one decision, us, 10 origins':32} {'p50':>7} {'p99':>7} {'p99.9':>7}")
    for name, view, wanted in cases:
        figures = measure(lambda view=view, wanted=wanted: choose_origin(wanted, view, 0.0))  # type: ignore[misc]
        print(f"{name:32} " + " ".join(f"{max(0.0, figure - base):7.2f}" for figure in figures))
        if name.startswith("plain"):
            by_lease_us.append(figures[1] - base)
    text = (
        f"by lease p99 {max(by_lease_us):.2f} us; goal <= {GOAL_US:g} us:"
        f" {verdict(reached=max(by_lease_us) <= GOAL_US)}"
    )
    print(text)
    return exit_status(text)


if __name__ == "__main__":
    sys.exit(main())
