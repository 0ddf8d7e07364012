"""The admin HTTP listener: who is let in, and what it answers."""

import contextlib
import gzip
import hashlib
import json
from collections.abc import AsyncIterator

import pytest
import trio
from msgspec import Struct
from structlog.testing import capture_logs

from edged.api.admin import AdminConfig
from edged.api.admin_access import WRONG_TOKENS_MAX
from edged.errors import ConfigError, EdgedError
from edged.policy.network_history import HistoryLines
from edged.roles import admin_http
from edged.roles.admin_http import COMPRESSED_FROM, no_history, serve_admin_http
from edged.roles.snapshot import StatusQuery
from edged.runtime.listeners import parse_address
from edged.runtime.pump import Pump

TOKEN = "token-of-the-test-1234"  # noqa: S105 - it opens nothing
BEARER = f"Authorization: Bearer {TOKEN}"


class Answer(Struct):
    status: int
    fields: dict[str, str]
    body: bytes


class Listener:
    """A running listener, and the questions that came through."""

    def __init__(self) -> None:
        self.address = ""
        self.asked: list[StatusQuery] = []
        self.fails_with: EdgedError | None = None
        self.commands: list[bytes] = []
        self.cursors: list[str] = []
        self.lines = HistoryLines(text=b'{"seq":1}\n', gzip=None, tag='"ab-1-1"')

    def history(self, cursor: str) -> HistoryLines:
        self.cursors.append(cursor)
        return self.lines

    def command(self, line: bytes) -> bytes:
        self.commands.append(line)
        return b'{"result":7}\n'

    def answer(self, query: StatusQuery) -> bytes:
        self.asked.append(query)
        if self.fails_with is not None:
            raise self.fails_with
        return b'{"streams": []}'

    async def get(
        self,
        path: str,
        *lines: str,
        host: str = "localhost",
        method: str = "GET",
        body: bytes = b"",
    ) -> Answer:
        """One request with these header lines."""
        name, port = parse_address(self.address)
        head = [f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "Connection: close"]
        head += [f"Content-Length: {len(body)}"] if body else []
        async with await trio.open_tcp_stream(name, port) as stream:
            await stream.send_all("".join(f"{line}\r\n" for line in [*head, ""]).encode() + body)
            data = b""
            with trio.fail_after(5):
                while chunk := await stream.receive_some(65536):
                    data += chunk
        top, _, body = data.partition(b"\r\n\r\n")
        first, *rest = top.decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in rest)
        return Answer(int(first.split()[1]), fields, body)


@contextlib.asynccontextmanager
async def listening(*, is_irs: bool = True) -> AsyncIterator[Listener]:
    listener = Listener()
    history = listener.history if is_irs else no_history
    config = AdminConfig(
        listen="127.0.0.1:0", token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest()
    )
    async with trio.open_nursery() as nursery:
        listener.address = await nursery.start(
            serve_admin_http, config, listener.answer, listener.command, history
        )
        yield listener
        nursery.cancel_scope.cancel()


async def test_the_page_is_for_all_and_the_status_is_not() -> None:
    async with listening() as listener:
        page = await listener.get("/")
        assert page.status == 200
        assert b"<title>edged status</title>" in page.body
        assert "default-src 'none'" in page.fields["content-security-policy"]
        script = page.body.decode().split('<script type="module" src="')[1].split('"')[0]
        assert (await listener.get(script)).status == 200
        assert (await listener.get("/web/0/status.js")).status == 404
        refused = await listener.get("/status.json")
        assert (refused.status, refused.body) == (401, b"this needs the token of [admin]\n")
        assert listener.asked == []
        assert (await listener.get("/streams.json")).status == 404


async def test_the_network_page_is_for_all_and_its_lines_are_not() -> None:
    async with listening() as listener:
        page = await listener.get("/network")
        assert page.status == 200
        assert b"<title>edged network</title>" in page.body
        assert "default-src 'none'" in page.fields["content-security-policy"]
        assert (await listener.get("/network.jsonl")).status == 401
        assert listener.cursors == []
        answer = await listener.get("/network.jsonl?after=ab-0", BEARER)
        assert (answer.status, answer.body) == (200, b'{"seq":1}\n')
        assert answer.fields["content-type"] == "application/jsonl; charset=utf-8"
        assert answer.fields["cache-control"] == "no-store"
        await listener.get("/network.jsonl", BEARER)
        assert listener.cursors == ["ab-0", ""]


async def test_lines_that_a_program_has_are_not_sent_again() -> None:
    async with listening() as listener:
        first = await listener.get("/network.jsonl", BEARER)
        assert first.fields["etag"] == '"ab-1-1"'
        again = await listener.get("/network.jsonl", BEARER, 'If-None-Match: "ab-1-1"')
        assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("ready", [True, False])
async def test_lines_are_compressed_for_who_takes_it(ready: bool) -> None:
    text = b'{"seq":1}\n' * COMPRESSED_FROM
    async with listening() as listener:
        made = gzip.compress(text) if ready else None
        listener.lines = HistoryLines(text=text, gzip=made, tag='"ab-1-9"')
        answer = await listener.get("/network.jsonl", BEARER, "Accept-Encoding: gzip")
        assert answer.fields["content-encoding"] == "gzip"
        assert gzip.decompress(answer.body) == text
        plain = await listener.get("/network.jsonl", BEARER)
        assert plain.body == text
        assert "content-encoding" not in plain.fields
        assert plain.fields["vary"] == answer.fields["vary"] == "accept-encoding"
        assert plain.fields["etag"] != answer.fields["etag"], "they are other bytes"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("after=" + "a" * 65, b"after exceeds 64 characters"),
        ("before=1", b"unknown 'before'; known: after"),
        ("=&&", b"bad query field"),
    ],
)
async def test_questions_for_lines_that_are_none(query: str, message: bytes) -> None:
    async with listening() as listener:
        answer = await listener.get(f"/network.jsonl?{query}", BEARER)
        assert answer.status == 400
        assert message in answer.body
        assert listener.cursors == []


async def test_without_an_irs_there_is_no_network_to_draw() -> None:
    async with listening(is_irs=False) as listener:
        answer = await listener.get("/network.jsonl", BEARER)
        assert answer.status == 404
        assert b"this edged is no IRS" in answer.body


async def test_programs_send_the_token_each_time() -> None:
    async with listening() as listener:
        answer = await listener.get("/status.json", BEARER)
        assert (answer.status, json.loads(answer.body)) == (200, {"streams": []})
        assert answer.fields["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.fields
        await listener.get("/status.json?filter=al%20ice&sort=viewers&limit=5", BEARER)
        assert listener.asked == [
            StatusQuery(),
            StatusQuery(text="al ice", sort="viewers", limit=5),
        ]


async def test_browsers_trade_it_for_a_session() -> None:
    async with listening() as listener:
        login = await listener.get("/login", BEARER)
        assert login.status == 200
        field = login.fields["set-cookie"]
        assert "httponly" in field
        assert "samesite=strict" in field
        cookie = f"Cookie: {field.split(';')[0]}"
        assert TOKEN not in field
        assert (await listener.get("/status.json", cookie)).status == 200
        logout = await listener.get("/logout", cookie)
        assert "max-age=0" in logout.fields["set-cookie"]
        assert (await listener.get("/status.json", cookie)).status == 401


async def test_wrong_tokens_are_refused_logged_and_limited() -> None:
    with capture_logs() as logs:
        async with listening() as listener:
            for _ in range(WRONG_TOKENS_MAX):
                wrong = await listener.get("/login", "Authorization: Bearer wrong")
                assert (wrong.status, wrong.body) == (401, b"the token is wrong\n")
                assert "set-cookie" not in wrong.fields
            late = await listener.get("/status.json", BEARER)
            assert late.status == 429
            assert 1 <= int(late.fields["retry-after"]) <= 60
            await listener.get("/status.json")
    told = [line for line in logs if line["event"] == "admin token refused"]
    assert len(told) == WRONG_TOKENS_MAX
    assert "wrong" not in {str(line.get("token")) for line in told}
    assert not any(TOKEN in str(line) for line in logs)


@pytest.mark.parametrize("path", ["/", "/status.json", "/login", "/network", "/network.jsonl"])
async def test_a_name_that_was_made_to_point_here_is_refused(path: str) -> None:
    """DNS rebinding: the browser asks by the attacker's name."""
    async with listening() as listener:
        answer = await listener.get(path, BEARER, host="rebound.example:9465")
        assert answer.status == 421
        assert listener.asked == []
        assert (await listener.get(path, BEARER, host="127.0.0.1:1234")).status == 200


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sort=age", b"sort 'age' is none of"),
        ("limit=x", b"limit 'x' is no number"),
        ("token=secret", b"unknown 'token'; known: filter, limit, sort"),
        ("&".join(["filter=a"] * 9), b"fields"),
        ("=&&", b"bad query field"),
    ],
)
async def test_questions_that_are_none(query: str, message: bytes) -> None:
    async with listening() as listener:
        answer = await listener.get(f"/status.json?{query}", BEARER)
        assert answer.status == 400
        assert message.lower() in answer.body.lower()
        assert listener.asked == []


async def test_too_many_questions_are_told_to_come_again() -> None:
    async with listening() as listener:
        listener.fails_with = EdgedError("too many")
        answer = await listener.get("/status.json", BEARER)
        assert (answer.status, answer.fields["retry-after"]) == (429, "1")


async def test_who_asks_for_the_hour_too_often_is_told_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin_http, "HISTORIES_PER_S_MAX", 3)
    now, later_s = Pump.now, [0.0]
    monkeypatch.setattr(Pump, "now", lambda pump: now(pump) + later_s[0])
    async with listening() as listener:
        some = listener.lines
        listener.lines = HistoryLines(text=b"", gzip=None, tag='"ab-9"')
        for _ in range(9):  # Who has all asks as often as he likes.
            assert (await listener.get("/network.jsonl?after=ab-9", BEARER)).status == 200
        listener.lines = some
        for _ in range(3):
            assert (await listener.get("/network.jsonl", BEARER)).status == 200
        refused = await listener.get("/network.jsonl", BEARER)
        assert (refused.status, refused.fields["retry-after"]) == (429, "1")
        assert refused.body == b"3 answers were given within a second; ask again\n"
        assert len(listener.cursors) == 12, "nothing was looked up for it"
        later_s[0] = 1.0
        assert (await listener.get("/network.jsonl", BEARER)).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_it_is_read_only(method: str) -> None:
    async with listening() as listener:
        assert (await listener.get("/status.json", BEARER, method=method)).status == 405


async def test_it_listens_on_loopback_only() -> None:
    config = AdminConfig(listen="0.0.0.0:0", token_sha256="0" * 64)
    with pytest.raises(ConfigError, match="is not on loopback"):
        await serve_admin_http(config, Listener().answer, Listener().command)


async def test_commands_need_the_token_itself() -> None:
    async with listening() as listener:
        line = b'{"command":"drain","arguments":{}}\n'
        done = await listener.get("/command/", BEARER, method="POST", body=line)
        assert (done.status, done.body) == (200, b'{"result":7}\n')
        assert listener.commands == [line]
        login = await listener.get("/login", BEARER)
        cookie = "Cookie: " + login.fields["set-cookie"].partition(";")[0]
        for fields in ((), (cookie,), ("Authorization: Bearer wrong-token-of-nobody",)):
            refused = await listener.get("/command/", *fields, method="POST", body=line)
            assert refused.status == 401
        rebound = await listener.get(
            "/command/", BEARER, method="POST", body=line, host="evil.example"
        )
        assert rebound.status == 421
        for method in ("GET", "PUT", "OPTIONS"):
            refused = await listener.get("/command/", BEARER, method=method)
            assert (refused.status, refused.fields["allow"]) == (405, "post")
            assert "access-control-allow-origin" not in refused.fields
        assert listener.commands == [line]
