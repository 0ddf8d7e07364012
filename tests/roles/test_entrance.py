"""Whose key it is: here first, then elsewhere; and wrong ones count wherever they are shown."""

from collections.abc import Callable

import pytest

from edged.errors import PublishRefusedError
from edged.ingest.plugin import PublishRequest
from edged.media.stream import Grant
from edged.policy.attempts import WRONG_KEYS_MAX
from edged.policy.key_callback import KeyQuestion
from edged.policy.stream_keys import StaticKey, StreamKeys
from edged.roles.entrance import Entrance

KEYS = StreamKeys([StaticKey(channel="alice", key="key-of-alice", scope=("publish:rtmps",))])
PEER = "10.0.0.7:50112"


class Elsewhere:
    def __init__(self) -> None:
        self.questions: list[KeyQuestion] = []
        self.checks = 0
        self.code = "unknown_key"

    async def __call__(self, question: KeyQuestion, check: Callable[[], None]) -> Grant:
        self.questions.append(question)
        check()
        if question.stream_key != "key-of-carol":
            raise PublishRefusedError(self.code, "says the service")
        return Grant(channel="carol")


def make(elsewhere: Elsewhere | None) -> Entrance:
    return Entrance(KEYS, elsewhere, now=lambda: 100.0, unix_now=lambda: 1.7e9)


def request(key: str, protocol: str = "rtmps") -> PublishRequest:
    return PublishRequest(
        protocol=protocol, app="live", stream_key=key, peer=PEER, encoder="OBS 30"
    )


async def test_a_key_that_is_known_here_is_not_asked_about() -> None:
    elsewhere = Elsewhere()
    entrance = make(elsewhere)
    assert (await entrance.admit(request("key-of-alice"))).channel == "alice"
    assert (await entrance.identify("key-of-alice", PEER)).channel == "alice"
    with pytest.raises(PublishRefusedError, match="out_of_scope"):
        await entrance.admit(request("key-of-alice", "rtmp"))
    assert elsewhere.questions == []


async def test_another_is_and_the_question_says_by_which_way_it_came() -> None:
    elsewhere = Elsewhere()
    entrance = make(elsewhere)
    assert (await entrance.admit(request("key-of-carol"))).channel == "carol"
    assert (await entrance.identify("key-of-carol", PEER)).channel == "carol"
    assert (await entrance.identify("key-of-carol", PEER, "rtmp")).channel == "carol"
    told = [(question.app, question.protocol) for question in elsewhere.questions]
    assert told == [("live", "rtmps"), ("", "api"), ("", "rtmp")]
    assert elsewhere.questions[0].encoder == "OBS 30"
    assert elsewhere.questions[0].peer == PEER


async def test_without_a_service_it_is_unknown() -> None:
    with pytest.raises(PublishRefusedError, match="unknown_key"):
        await make(None).admit(request("key-of-carol"))


@pytest.mark.parametrize("code", ["unknown_key", "auth_unavailable"])
async def test_wrong_keys_count_and_want_of_an_answer_does_not(code: str) -> None:
    elsewhere = Elsewhere()
    elsewhere.code = code
    entrance = make(elsewhere)
    for number in range(WRONG_KEYS_MAX):
        shown = entrance.identify("guess", PEER) if number % 2 else entrance.admit(request("guess"))
        with pytest.raises(PublishRefusedError, match=code):
            await shown
    if code == "unknown_key":
        with pytest.raises(PublishRefusedError, match="rate_limited"):
            await entrance.admit(request("key-of-carol"))
        assert len(elsewhere.questions) == WRONG_KEYS_MAX
    else:
        assert (await entrance.admit(request("key-of-carol"))).channel == "carol"
