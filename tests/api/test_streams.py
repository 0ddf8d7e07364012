"""Operations on streams: pages that add up, and who may describe a stream."""

import hashlib

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.api.operations import ApiRequest
from edged.api.problems import ApiError
from edged.api.schemas import StreamChange, StreamDetail, StreamList, StreamQuery
from edged.api.streams import LISTING_S, StreamHandlers
from edged.errors import EdgedError, PublishRefusedError
from edged.media.stream import Description, DescriptionChange
from tests.api.client import KEY, Side

TOKEN = "token-of-an-operator"  # noqa: S105 - of this test


class Setting:
    def __init__(self) -> None:
        self.time = 0.0
        self.side = Side()
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        self.handlers = StreamHandlers(self.side, lambda: self.time, digest)

    async def list(self, **query: object) -> StreamList:
        asked = msgspec.convert(query, StreamQuery)
        answer = await self.handlers.list_streams(request(query=asked))
        assert isinstance(answer.body, StreamList)
        return answer.body

    async def patch(self, body: bytes, bearer: str | None = KEY, channel: str = "alice") -> object:
        fields = [] if bearer is None else [(b"Authorization", b"Bearer " + bearer.encode())]
        asked = msgspec.json.decode(body, type=StreamChange)
        answer = await self.handlers.patch_stream(
            request(channel=channel, body=asked, fields=fields)
        )
        return answer.body


def request(
    *,
    channel: str = "alice",
    query: object = None,
    body: object = b"",
    fields: list[tuple[bytes, bytes]] | None = None,
) -> ApiRequest:
    return ApiRequest(
        method="GET",
        path="/",
        params={"channel": channel},
        query=query,
        query_string="",
        body=body,
        fields=fields or [],
        client="192.0.2.1",
        secure=False,
    )


async def test_the_most_watched_come_first_and_pages_go_on() -> None:
    setting = Setting()
    for channel, viewers in (("a", 1), ("b", 5), ("c", 5), ("d", 0), ("e", 9)):
        setting.side.add(channel, viewers)
    whole = await setting.list()
    assert [known.channel for known in whole.streams] == ["e", "b", "c", "a", "d"]
    assert (whole.total, whole.next_cursor) == (5, None)
    first = await setting.list(limit=2)
    assert [known.channel for known in first.streams] == ["e", "b"]
    assert first.total == 5
    assert first.next_cursor is not None
    second = await setting.list(limit=2, cursor=first.next_cursor)
    assert [known.channel for known in second.streams] == ["c", "a"]
    third = await setting.list(limit=2, cursor=second.next_cursor)
    assert [known.channel for known in third.streams] == ["d"]
    assert third.next_cursor is None


@hypothesis.given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 3), max_size=30),
    st.integers(1, 7),
)
async def test_all_pages_together_are_the_whole(viewers: dict[str, int], limit: int) -> None:
    setting = Setting()
    for channel, count in viewers.items():
        setting.side.add(channel, count)
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await setting.list(limit=limit, cursor=cursor)
        found += [known.channel for known in page.streams]
        cursor = page.next_cursor
    assert found == sorted(viewers, key=lambda channel: (-viewers[channel], channel))


async def test_only_those_of_a_category_or_with_a_tag() -> None:
    setting = Setting()
    setting.side.add("a", category="Music", labels=("Live", "jazz"))
    setting.side.add("b", category="music")
    setting.side.add("c", category="Chess", labels=("live",))
    assert [known.channel for known in (await setting.list(category="MUSIC")).streams] == ["a", "b"]
    assert [known.channel for known in (await setting.list(tag="live")).streams] == ["a", "c"]
    both = await setting.list(category="music", tag="live")
    assert [known.channel for known in both.streams] == ["a"]
    assert both.total == 1
    assert (await setting.list(tag="liv")).streams == []


@pytest.mark.parametrize("cursor", ["x", "!!!", "AAAA", "kgGhYQ" * 40, "wMDA"])
async def test_a_cursor_that_no_page_gave_is_said(cursor: str) -> None:
    with pytest.raises(ApiError, match="invalid_query: cursor"):
        await Setting().list(cursor=cursor)


async def test_a_list_is_made_anew_four_times_a_second_at_most() -> None:
    setting = Setting()
    setting.side.add("a")
    assert (await setting.list()).total == 1
    setting.side.add("b")
    setting.time = LISTING_S - 0.01
    assert (await setting.list()).total == 1
    setting.time = LISTING_S
    assert (await setting.list()).total == 2


async def test_one_stream_and_what_it_consists_of() -> None:
    setting = Setting()
    setting.side.add("alice", 3, title="Alice", category="Music", labels=("live",))
    answer = await setting.handlers.get_stream(request())
    told = answer.body
    assert isinstance(told, StreamDetail)
    assert (told.title, told.category, told.tags) == ("Alice", "Music", ["live"])
    assert (told.viewers, told.started_at) == (3, "2023-11-14T22:13:20Z")
    assert (told.watch_url, told.playlist_url) == ("/watch/alice", "/live/alice/master.m3u8")
    assert told.media is not None
    assert told.media.video[0].height == 720
    with pytest.raises(ApiError, match="not_live: channel 'bob' is not live"):
        await setting.handlers.get_stream(request(channel="bob"))


async def test_the_owner_of_the_key_describes_the_stream() -> None:
    setting = Setting()
    setting.side.add("alice", title="before", category="Music", labels=("x",))
    await setting.list()
    told = await setting.patch(b'{"title":"now","tags":["a","b"]}')
    assert isinstance(told, StreamDetail)
    assert (told.title, told.category, told.tags) == ("now", "Music", ["a", "b"])
    assert setting.side.changes == [("alice", DescriptionChange(title="now", labels=("a", "b")))]
    assert (await setting.list()).streams[0].title == "now"  # At once, for who has changed it.
    await setting.patch(b'{"title":null,"category":null,"tags":null}')
    assert setting.side.live["alice"].description == Description()


async def test_the_operator_s_token_is_for_every_channel() -> None:
    setting = Setting()
    setting.side.add("bob")
    await setting.patch(b'{"title":"now"}', TOKEN, "bob")
    assert setting.side.clients == []  # It was not looked at as a key.


async def test_without_a_token_there_is_no_operator() -> None:
    side = Side()
    side.add("bob")
    handlers = StreamHandlers(side, lambda: 0.0)
    fields = [(b"Authorization", b"Bearer " + TOKEN.encode())]
    with pytest.raises(ApiError, match="unknown_key"):
        await handlers.patch_stream(
            request(channel="bob", body=StreamChange(title="x"), fields=fields)
        )


@pytest.mark.parametrize(
    ("bearer", "channel", "code"),
    [
        (None, "alice", "missing_credentials"),
        ("", "alice", "missing_credentials"),
        ("wrong-key", "alice", "unknown_key"),
        (KEY, "bob", "wrong_channel"),
    ],
)
async def test_who_may_not(bearer: str | None, channel: str, code: str) -> None:
    setting = Setting()
    setting.side.add(channel)
    with pytest.raises(ApiError) as refused:
        await setting.patch(b'{"title":"x"}', bearer, channel)
    assert refused.value.code == code
    assert setting.side.changes == []
    assert ("WWW-Authenticate", 'Bearer realm="edged"') in refused.value.fields or bearer


async def test_wrong_keys_are_counted_with_the_client_s_address() -> None:
    setting = Setting()
    setting.side.refusal = PublishRefusedError("rate_limited", "too many", retry_after_s=33.0)
    with pytest.raises(ApiError) as refused:
        await setting.patch(b"{}")
    assert refused.value.fields == (("Retry-After", "33"),)
    assert setting.side.clients == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"title":"a\\nb"}', "title: the character U+000A is not allowed"),
        (b'{"tags":["a","a"]}', "tags: one is there twice"),
    ],
)
async def test_what_may_not_be_said(body: bytes, problem: str) -> None:
    setting = Setting()
    setting.side.add("alice")
    with pytest.raises(ApiError) as refused:
        await setting.patch(body)
    assert (refused.value.code, refused.value.detail) == ("invalid_body", problem)


async def test_a_change_that_reaches_nobody_is_said() -> None:
    setting = Setting()
    with pytest.raises(ApiError, match="not_live"):
        await setting.patch(b'{"title":"x"}')
    setting.side.error = EdgedError("its PoP has not answered")
    with pytest.raises(ApiError, match="unconfirmed: its PoP has not answered"):
        await setting.patch(b'{"title":"x"}')
