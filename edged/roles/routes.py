"""What a PoP routes by, and where its streams went: the answer to `edged routes`."""

import heapq
from collections.abc import Mapping

import msgspec

from edged.errors import EdgedError
from edged.media.routing import RouteRequest, Text
from edged.media.stream import PriorityClass
from edged.policy.route_words import describe_effect, describe_match
from edged.policy.rules import label
from edged.roles.pop import PopRole
from edged.roles.sampler import RoleSamples
from edged.roles.snapshot_network import describe_irs_link, describe_origins, describe_route
from edged.roles.status import RoutedStream, RoutesSeen, RuleSeen

_read_tags = msgspec.json.Decoder(tuple[Text, ...]).decode
STREAMS_MAX = 500  # Described; beyond it `edged top --filter` finds one.
RULES_SHOWN_MAX = 1000  # All that a table may have.


def parse_request(arguments: Mapping[str, str]) -> RouteRequest:
    """The stream that `edged route explain` asks about; raises EdgedError that names what is wrong.

    `tags` is a JSON array.
    """
    channel, label = arguments.get("channel", ""), arguments.get("class", "basic")
    if not channel:
        raise EdgedError("route-explain needs a channel")
    priority = next((each for each in PriorityClass if each.label == label), None)
    if priority is None:
        known = ", ".join(each.label for each in PriorityClass)
        raise EdgedError(f"class {label[:40]!r} is none of {known}")
    try:
        tags = _read_tags(arguments.get("tags", "[]"))
    except msgspec.MsgspecError as error:
        raise EdgedError(
            f"tags {arguments['tags'][:40]!r} are no list of texts: {error}"
        ) from error
    return RouteRequest(
        channel=channel, priority=priority, tags=tags, protocol=arguments.get("protocol", "")
    )


def describe_routes(pop: PopRole, samples: RoleSamples, now: float, unix: float) -> RoutesSeen:
    """One PoP's table, with its rules and streams."""
    view, table = pop.view, pop.view.table
    placing = pop.uplinks.placing
    rules = () if table is None else table.rules
    names = heapq.nsmallest(STREAMS_MAX, placing.placements)
    return RoutesSeen(
        pop=view.pop,
        table=None if table is None else table.stamp,
        table_age_s=None if table is None else round(max(0.0, unix - table.issued), 1),
        lease_left_s=round(max(0.0, view.lease_until - now), 1) if table is not None else 0.0,
        irs=describe_irs_link(pop.irs, now, samples),
        origins=describe_origins(view),
        rules=[
            RuleSeen(
                label=label(rule),
                match=describe_match(rule),
                does=describe_effect(rule),
                placed=placing.placed_by[label(rule)],
            )
            for rule in rules[:RULES_SHOWN_MAX]
        ],
        streams=[
            RoutedStream(
                channel=name, route=describe_route(view.pop, placing.placements[name], now)
            )
            for name in names
        ],
        streams_total=len(placing.placements),
        drained=pop.rehomer.drained(),
    )
