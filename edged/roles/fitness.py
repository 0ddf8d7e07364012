"""Whether each role of a process can do its work now: what `edged health` and the metrics say.

Grave is what makes a PoP no good to those who come: a load balancer had better send them elsewhere.
That is no reason to restart it, which would end what still runs; the watchdog restarts what hangs.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from edged.roles import path_metrics
from edged.roles.window_metrics import read_window_metrics
from edged.runtime.listeners import SHED_LAG_S
from edged.runtime.metrics import MetricSpec, Sample

if TYPE_CHECKING:
    from edged.roles.irs import IrsRole
    from edged.roles.origin import OriginRole
    from edged.roles.pop import PopRole


class Fault(Struct, frozen=True, kw_only=True):
    """What is wrong with a role."""

    role: str
    what: str
    grave: bool  # It cannot do its work; else it can, for now.


class Health(Struct, frozen=True, kw_only=True):
    """How a process is."""

    roles: list[str]
    faults: list[Fault]

    @property
    def fit(self) -> bool:
        """Whether it can do its work."""
        return not any(fault.grave for fault in self.faults)


ORIGIN_SPECS = (
    MetricSpec(
        name="edged_origin_subscriptions",
        help="What PoPs take from here: channels' parts, or their units.",
        labels=("role", "kind"),
    ),
    MetricSpec(
        name="edged_origin_source_only_streams",
        help="Streams that were taken beyond the slots, without a ladder, as a rule asked for it.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_origin_preemptions_total",
        help="Streams that gave way to one of a higher class, as a rule asked for it.",
        labels=("role",),
    ),
)
LADDER_SPECS = (
    MetricSpec(
        name="edged_ladder_streams",
        help="Streams that are encoded again.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_ladder_waiting_streams",
        help="Streams that wait for slots to be encoded again, the preempted included.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_ladder_preempted_streams",
        help="Streams that had slots and gave them up to a higher class.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_ladder_preemptions_total",
        help="Times that a stream's ladder was preempted.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_ladder_slots",
        help="Slots of compute for ladders: in all, and those that are used.",
        labels=("role", "which"),
    ),
    MetricSpec(
        name="edged_ladder_restarts_total",
        help="Times that a stream's encoder failed and was begun anew.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_ladder_shed_rungs",
        help="Rungs that are not made as the host is too slow.",
        labels=("role",),
    ),
)
SPECS = (
    MetricSpec(
        name="edged_routing_irs_sessions",
        help="Sessions of this role to IRS; 0 when IRS is gone.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_routing_table_age_seconds",
        help="How long ago the routing table in force was issued.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_routing_origins",
        help="Origins of the routing table, by whether this PoP may place streams there.",
        labels=("role", "usable"),
    ),
    MetricSpec(
        name="edged_ingest_plugin_up",
        help="1 while the plug-in runs.",
        labels=("role", "plugin"),
    ),
    MetricSpec(
        name="edged_ingest_plugin_failures_total",
        help="Times that the plug-in failed and was started again.",
        labels=("role", "plugin"),
    ),
    *path_metrics.SPECS,
)


def find_pop_faults(pop: "PopRole") -> list[Fault]:
    """What keeps a PoP from its work, and what may soon."""
    faults = [
        Fault(role=pop.name, what=f"ingest plug-in {name!r} is down: {part.failure}", grave=True)
        for name, part in pop.plugins.parts.items()
        if not part.up
    ]
    table = pop.view.table
    if table is None:
        what = "no routing table: IRS has not been reached, and none is on disk"
        faults.append(Fault(role=pop.name, what=what, grave=True))
    elif not _usable(pop):
        why = "; ".join(f"{name}: {known.blocked}" for name, known in pop.view.by_name.items())
        what = f"no origin takes streams: {why or 'the table has none'}"
        faults.append(Fault(role=pop.name, what=what, grave=True))
    if table is not None and not _irs_sessions(pop):
        age_s = max(0.0, time.time() - table.issued)
        what = f"no session to IRS; routing goes on by a table of {age_s:.0f} s ago"
        faults.append(Fault(role=pop.name, what=what, grave=False))
    grants = None if pop.irs is None else pop.irs.grants
    if grants is not None and _irs_sessions(pop) and not grants.active(trio.current_time()):
        what = "no IRS is active: none that is reached has a majority of PoPs, or asks for it"
        faults.append(Fault(role=pop.name, what=what, grave=False))
    faults += _twin_faults(pop)
    return faults + _lag_faults(pop)


def find_origin_faults(origin: "OriginRole") -> list[Fault]:
    """The same of an origin."""
    faults = []
    if not _irs_sessions(origin):
        what = "no session to IRS, which tells PoPs of this origin"
        faults.append(Fault(role=origin.name, what=what, grave=False))
    if not any(origin.service.free()):
        what = f"all {origin.service.slots.total} slots are taken"
        faults.append(Fault(role=origin.name, what=what, grave=False))
    faults += _twin_faults(origin)
    return faults + _lag_faults(origin)


def find_irs_faults(irs: "IrsRole") -> list[Fault]:
    """The same of IRS."""
    seen, faults = irs.service.seat.status(), []
    if seen.state_problem:
        what = f"drains are not kept for the next start: {seen.state_problem}"
        faults.append(Fault(role=irs.name, what=what, grave=False))
    if irs.history is not None and (problem := irs.history.why_not_kept(trio.current_time())):
        what = f"demand is not kept for forecasts: {problem}"
        faults.append(Fault(role=irs.name, what=what, grave=False))
    if not seen.leads and not seen.active_at:
        what = (
            f"{seen.grants} of {seen.pops_known} pops grant this irs an epoch, {seen.majority} must"
        )
        if seen.pops_here < seen.majority:
            what += f"; it hears {seen.pops_here} of them"
        faults.append(Fault(role=irs.name, what=what, grave=False))
    if conflicts := irs.service.live.conflicts():
        first = conflicts[0]
        more = f", and {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
        what = f"{first.channel!r} is published at {' and '.join(first.pops)}{more}: edged live"
        faults.append(Fault(role=irs.name, what=what, grave=False))
    if full := irs.service.live.registry.full():
        (first_pop, why), more = next(iter(full.items())), len(full) - 1
        beside = f", and of {more} more pops" if more else ""
        what = f"who is live at {first_pop} is not known{beside}: {why}"
        faults.append(Fault(role=irs.name, what=what, grave=False))
    capacitor = irs.service.collectors.capacitor
    states = {name: capacitor.state(name) for name in capacitor.origins}
    if any(state is not None and state.takes_streams for state in states.values()):
        return faults
    found = ", ".join(f"{name}: {state}" for name, state in sorted(states.items()))
    what = f"no origin takes streams: {found or 'none has been heard'}"
    return [*faults, Fault(role=irs.name, what=what, grave=False)]


def read_pop_metrics(pop: "PopRole") -> Iterable[Sample]:
    """Values of SPECS for a PoP."""
    yield Sample("edged_routing_irs_sessions", _irs_sessions(pop), {"role": pop.name})
    if pop.view.table is not None:
        age_s = max(0.0, time.time() - pop.view.table.issued)
        yield Sample("edged_routing_table_age_seconds", age_s, {"role": pop.name})
    usable = _usable(pop)
    for label, count in (("yes", usable), ("no", len(pop.view.by_name) - usable)):
        yield Sample("edged_routing_origins", count, {"role": pop.name, "usable": label})
    yield from path_metrics.read_paths(pop.name, pop.view)
    for name, part in pop.plugins.parts.items():
        labels = {"role": pop.name, "plugin": name}
        yield Sample("edged_ingest_plugin_up", part.up, labels)
        yield Sample("edged_ingest_plugin_failures_total", part.failures_total, labels)


def read_origin_metrics(origin: "OriginRole") -> Iterable[Sample]:
    """Values of SPECS for an origin: it has no table."""
    labels = {"role": origin.name}
    yield Sample("edged_routing_irs_sessions", _irs_sessions(origin), labels)
    packaged = origin.service.statistics()
    yield Sample("edged_origin_source_only_streams", packaged.source_only, labels)
    yield Sample("edged_origin_preemptions_total", packaged.preempted_total, labels)
    yield Sample("edged_ladder_streams", packaged.ladders, labels)
    yield Sample("edged_ladder_restarts_total", packaged.ladder_restarts_total, labels)
    yield Sample("edged_ladder_shed_rungs", packaged.rungs_shed, labels)
    served = origin.server.statistics()
    for kind, count in (
        ("parts", served.subscriptions.parts),
        ("units", served.subscriptions.units),
    ):
        yield Sample("edged_origin_subscriptions", count, {**labels, "kind": kind})
    yield from read_window_metrics(origin.name, packaged, served.segments)
    slots = packaged.ladder_slots
    if slots is not None:
        yield Sample("edged_ladder_waiting_streams", slots.waiting, labels)
        yield Sample("edged_ladder_preempted_streams", slots.preempted, labels)
        yield Sample("edged_ladder_preemptions_total", slots.preemptions, labels)
        yield Sample("edged_ladder_slots", slots.total, {**labels, "which": "total"})
        yield Sample("edged_ladder_slots", slots.used, {**labels, "which": "used"})


def _irs_sessions(role: "PopRole | OriginRole") -> int:
    return 0 if role.irs is None else len(role.irs.sessions)


def _twin_faults(role: "PopRole | OriginRole") -> list[Fault]:
    told = [] if role.irs is None else role.irs.twins.faults()
    return [Fault(role=role.name, what=what, grave=False) for what in told]


def _usable(pop: "PopRole") -> int:
    """Origins that streams may be placed at."""
    return sum(not known.blocked for known in pop.view.by_name.values())


def _lag_faults(role: "PopRole | OriginRole") -> list[Fault]:
    lag_s = role.pump.lag_s
    if lag_s <= SHED_LAG_S:
        return []
    what = f"the loop was {lag_s:.1f} s late; above {SHED_LAG_S:g} s new viewers are turned away"
    return [Fault(role=role.name, what=what, grave=True)]
