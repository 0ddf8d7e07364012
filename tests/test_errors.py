"""What every error that edged raises has in common."""

import inspect

from edged import errors
from edged.errors import EdgedError, PublishRefusedError, RouteUnavailableError


def test_all_are_operating_errors_and_say_when_they_are_raised() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(kinds) > 5
    for kind in kinds:
        assert issubclass(kind, EdgedError)
        assert kind.__name__.endswith("Error")
        assert kind.__doc__


def test_a_refusal_has_a_code_for_programs_and_a_reason_for_people() -> None:
    error = PublishRefusedError("full", "no slot is free")
    assert (error.code, error.reason, str(error)) == (
        "full",
        "no slot is free",
        "full: no slot is free",
    )
    assert error.detail == ""
    assert error.retry_after_s is None


def test_a_refusal_s_detail_is_for_the_log_and_not_in_the_reason() -> None:
    error = PublishRefusedError("no_route", "try again", "no route for 'alice': fra1: link down")
    assert error.reason == "try again"
    assert str(error) == "no_route: try again (no route for 'alice': fra1: link down)"


def test_no_route_names_every_origin_with_its_reason() -> None:
    error = RouteUnavailableError("alice", 7, {"lon": "drain", "fra": "no room"})
    assert str(error) == "no route for 'alice', table v7: fra: no room; lon: drain"
    assert error.rejected == {"lon": "drain", "fra": "no room"}
    assert str(RouteUnavailableError("bob", 0, {})) == "no route for 'bob', table v0: no origins"
