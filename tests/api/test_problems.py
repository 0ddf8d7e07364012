"""Problems: RFC 9457, with a code; what publishers hear is the same."""

import json
from http import HTTPStatus

import pytest

from edged.api.problems import CODES, RETRY_AFTER_S, ApiError
from edged.errors import PublishRefusedError


def test_a_problem_is_as_the_rfc_has_it() -> None:
    error = ApiError("not_live", "channel 'alice' is not live")
    assert json.loads(error.body()) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "channel 'alice' is not live",
        "code": "not_live",
    }
    assert error.fields == ()
    assert str(error) == "not_live: channel 'alice' is not live"


def test_what_passes_by_itself_says_when_to_ask_again() -> None:
    assert ApiError("busy", "x").fields == (("Retry-After", str(RETRY_AFTER_S)),)
    assert ApiError("rate_limited", "x", retry_after_s=12.4).fields == (("Retry-After", "12"),)
    assert ApiError("rate_limited", "x", retry_after_s=0.0).fields == (("Retry-After", "1"),)
    extra = ApiError("timeout", "x", fields=(("X", "y"),))
    assert extra.fields == (("X", "y"), ("Retry-After", "1"))


def test_a_refusal_keeps_its_code_and_says_nothing_of_routes() -> None:
    refusal = PublishRefusedError("takeover", "again", "origin fra1", retry_after_s=20.0)
    error = ApiError.of_refusal(refusal)
    assert (error.code, error.status, error.detail) == ("takeover", 409, "again")
    assert error.fields == (("Retry-After", "20"),)
    assert ApiError.of_refusal(PublishRefusedError("odd", "unheard of")).code == "internal"


def test_every_code_has_a_status_that_is_one_and_a_meaning() -> None:
    for code, (status, meaning) in CODES.items():
        assert 400 <= HTTPStatus(status) < 600, code
        assert meaning.endswith("."), code


def test_a_code_that_nobody_knows_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="not in the table"):
        ApiError("odd", "x")
