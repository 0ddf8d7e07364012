"""Routing decisions and rules in words, for whoever looks at a network."""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from edged.media.routing import Rule

PASSED_MAX = 4  # Named in a sentence; beyond it they are counted.

_MECHANISMS = {
    "nearest": "the nearest origin whose lease has room",
    "price": "the best of what is near and free by the origins' own heartbeats, "
    "as no lease allowed it",
    "pin": "the only origin that the rule allows",
    "group": "where the streams of its group go",
    "prefer": "the origin that the rule prefers",
    "incumbent": "where the run is that its publisher goes on with",
    "source-only": "asked to take it without a ladder, as no origin has room",
    "preempt": "asked to take it in place of one of a lower class, as no origin has room",
    "moved": "where IRS wanted it",
}


def explain_choice(
    origin: str, rule: str, matched: str, passed: Mapping[str, str], note: str = ""
) -> str:
    """A sentence: where a stream went, by what, and what stood in the way of others.

    `rule`, `matched`, `passed` and `note` are those of a `Decision`.
    """
    text = f"{origin} is {_MECHANISMS.get(rule, f'chosen by {rule}')}"
    if matched:
        text += f" (rule {matched!r})"
    if passed:
        named = [f"{name}: {why}" for name, why in list(passed.items())[:PASSED_MAX]]
        more = len(passed) - len(named)
        text += f"; not {'; not '.join(named)}{f'; nor {more} more' if more else ''}"
    return f"{text}; {note}" if note else text


def describe_match(rule: Rule) -> dict[str, str]:
    """What a rule matches, by key; empty: every stream."""
    given = msgspec.to_builtins(rule.match)
    return {key: str(value) for key, value in given.items() if value}


def describe_effect(rule: Rule) -> str:
    """What a rule does with the streams that it matches."""
    dscp = "" if rule.dscp is UNSET else rule.dscp.upper()
    known = (
        (rule.pin, f"pin to {rule.pin}"),
        (rule.prefer, f"prefer {', '.join(rule.prefer)}"),
        (rule.avoid, f"avoid {', '.join(rule.avoid)}"),
        (rule.group_by, f"together by {rule.group_by}"),
        (rule.anti_affinity, f"apart by {rule.anti_affinity}"),
        (rule.reserve, "may use the reserve"),
        (rule.max_rtt_ms is not None, f"at most {rule.max_rtt_ms or 0:g} ms away"),
        (rule.asks == "source-only", "without a ladder where nothing has room"),
        (rule.asks == "preempt", "in place of a lower class where nothing has room"),
        (dscp, f"carried as {dscp}"),
    )
    does = [text for given, text in known if given]
    return "; ".join(does) or "nothing: the nearest with room"
