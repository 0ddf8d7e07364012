"""`edged streams` and `edged route explain` against an admin door in another thread."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from msgspec import structs
from rich.text import Text

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.cli import asking
from edged.cli.inspect import describe_way, format_duration
from edged.errors import ConfigError, EdgedError
from edged.media.routing import OriginState, RouteRequest
from edged.media.stream import PriorityClass
from edged.policy.routing_table import Decision, Explanation, OriginVerdict
from edged.roles.channel_ways import ChannelWay
from edged.roles.common import StreamLine
from edged.roles.pop import RouteAnswer
from tests.cli.invoke import Answer, in_a_thread

NO_STREAMS = "no live streams here; at IRS, `edged live` shows those of the network\n"
LINE = StreamLine(
    role="pop ams1",
    channel="alice",
    publication="abc",
    home_epoch=1,
    came_from="rtmp 10.0.0.7:50112",
    goes_to="fra1",
    video="h264 1280x720 30 fps",
    audio="aac 48 kHz",
    seconds=3725.4,
    mbps=6.1234,
    gop_s=2.0,
    ring_mib=3.0,
    viewers=1234,
)
DECISION = Decision("fra1", "192.0.2.1:7410", "pin", 42, {"lon1": "rule pins it"}, "the big show")
NO_LADDER = structs.replace(DECISION, note="no ladder until slots are free")


ODD = "[/x] [red]"  # Markup to rich, and here what an encoder, a rule or a shell may hold.


ASKED: list[dict[str, str]] = []  # Arguments of what was explained.


def route(*, live: bool, refused: bool = False, table: bool = True) -> RouteAnswer:
    verdict = OriginVerdict(
        origin="fra1",
        address="192.0.2.1:7410",
        table_state=OriginState.UP,
        heartbeat_state=None,
        rtt_ms=7.126,
        quota=10,
        used=3,
        room=7,
        price_ms=0.5,
        verdict="chosen",
        ladders=None if live else 17,
    )
    now = Explanation(
        channel="alice",
        pop="ams1",
        table=(5, 42) if table else None,
        lease_left_s=0.0 if live else 4.2,
        matched="the big show",
        decision=None if refused else NO_LADDER,
        refusal="no route for 'alice': fra1: lease used up" if refused else "",
        origins=[verdict] if table else [],
        unmatched={"finals": "match.tag is 'final'"},
    )
    return RouteAnswer(
        pop="ams1",
        channel="alice",
        live=live,
        placed=DECISION if live else None,
        table_age_s=1.5 if table else None,
        now=now,
        request=RouteRequest(
            channel="alice", priority=PriorityClass.PARTNER, tags=("a", "b"), protocol="rtmps"
        ),
    )


def odd_route(*, refused: bool) -> RouteAnswer:
    """One in which every text is odd."""
    answer = route(live=False, refused=refused)
    names = dict.fromkeys(("origin", "address", "rule", "matched"), ODD)
    (verdict,) = answer.now.origins
    now = structs.replace(
        answer.now,
        unmatched={ODD: ODD},
        decision=None if refused else structs.replace(DECISION, **names),
        refusal=ODD if refused else "",
        origins=[structs.replace(verdict, origin=ODD, verdict=ODD)],
    )
    asked = RouteRequest(channel=ODD, tags=(ODD,), protocol=ODD)
    return structs.replace(answer, pop=ODD, channel=ODD, now=now, request=asked)


@contextlib.contextmanager
def edged_at(socket: Path, lines: list[StreamLine], routes: list[RouteAnswer]) -> Iterator[None]:
    def streams(arguments: Arguments) -> object:
        return lines

    def explain(arguments: Arguments) -> object:
        assert arguments["channel"] in ("alice", ODD)
        ASKED.append(dict(arguments))
        return routes

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        handlers = {"streams": streams, "route-explain": explain}
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_admin, AdminConfig(socket=socket), handlers)
            task_status.started("")

    with in_a_thread(main):
        yield


def test_a_stream_that_waits_says_so_to_people(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    waiting = structs.replace(LINE, state="waiting for its publisher 3 s")
    with edged_at(socket, [waiting], []):
        words = Answer("streams", "--socket", socket).out.split()
        assert {"waiting", "publisher", "3"} <= set(words)
        assert "1:02:05" not in words


def test_streams_for_people_and_for_programs(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [LINE], []):
        shown = " ".join(Answer("streams", "--socket", socket).out.split())
        for text in ("pop ams1", "alice", "rtmp 10.0.0.7:50112", "fra1", "h264 1280x720 30 fps"):
            assert text in shown
        for text in ("1:02:05", "6.12", "2.0 s", "1234"):
            assert text in shown
        (line,) = json.loads(Answer("streams", "--socket", socket, "--json").out)
        assert (line["channel"], line["mbps"]) == ("alice", 6.1234)


def test_ladders_have_a_column_where_any_is_made(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    made = structs.replace(LINE, role="origin fra1", ladder="ladder: 720p 480p, 1.3 x real time")
    waits = structs.replace(made, ladder="ladder waits: 2 before it; it needs 45 of 100 slots")
    with edged_at(socket, [made, waits, LINE], []):
        shown = " ".join(Answer("streams", "--socket", socket).out.split())
        assert "health ladder" in shown
        for word in ("720p", "waits:"):
            assert word in shown
        assert "ladder:" not in shown
    with edged_at(socket, [LINE], []):
        assert "ladder" not in Answer("streams", "--socket", socket).out


def test_names_from_outside_are_no_markup(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    texts = ("role", "channel", "came_from", "goes_to", "video", "audio")
    line = structs.replace(LINE, **dict.fromkeys(texts, ODD))
    with edged_at(socket, [line], [odd_route(refused=False), odd_route(refused=True)]):
        answer = Answer("streams", "--socket", socket)
        assert answer.error is None
        assert answer.out.count(ODD) == len(texts)
        answer = Answer("route", "explain", ODD, "--socket", socket)
        assert answer.error is None
        assert answer.out.count(ODD) == 21
        assert repr(ODD) in answer.out


def test_a_demos_place_that_others_may_own_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, usual = tmp_path / "demo", tmp_path / "usual.sock"
    folder.mkdir(0o700)
    monkeypatch.setattr(asking, "demo_directory", lambda: folder)
    places = [usual, folder / "admin.sock"]
    monkeypatch.setattr(asking, "default_sockets", lambda: places)
    with edged_at(folder / "admin.sock", [LINE], []):
        assert "alice" in Answer("streams").out
        folder.chmod(0o755)
        error = Answer("streams").error
        assert isinstance(error, ConfigError)
        assert str(error) == f"folder '{folder}' is open to others, mode 755: chmod 700 it"
        with edged_at(usual, [], []):
            assert Answer("streams").out.startswith(
                "no live streams here; at IRS, `edged live` shows"
            )


def test_no_streams(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [], []):
        assert Answer("streams", "--socket", socket).out.startswith(
            "no live streams here; at IRS, `edged live` shows"
        )
        assert json.loads(Answer("streams", "--socket", socket, "--json").out) == []


def test_the_running_edged_is_found_by_its_file_or_its_usual_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "admin.sock"
    config = tmp_path / "irs.toml"
    config.write_text(f'[irs]\n[admin]\nsocket = "{socket}"\n')
    places = [tmp_path / "none.sock", socket]
    monkeypatch.setattr(asking, "default_sockets", lambda: places)
    answer = Answer("streams")
    assert isinstance(answer.error, EdgedError)
    assert "no edged runs here (no admin socket found)" in str(answer.error)
    with edged_at(socket, [LINE], []):
        assert "alice" in Answer("streams", "-c", config).out
        assert "alice" in Answer("streams").out
    config.write_text("[irs")
    assert isinstance(Answer("streams", "-c", config).error, ConfigError)


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        (
            route(live=True),
            [
                "PoP ams1, channel alice: class partner by rtmps, tags a, b",
                "not lon1, then: rule pins it",
                "rule 'finals' does not match: match.tag is 'final'",
                "is published here and goes to fra1 at 192.0.2.1:7410",
                "rule: pin, matched 'the big show' (table v42)",
                "table in force: epoch 5 v42, issued 1.5 s ago; lease expired: price decides",
                "none heard",
                "7.13 ms",
                "3/10",
            ],
        ),
        (
            route(live=False),
            [
                "is not published here; would go to fra1",
                "lease for 4.2 s",
                "does not match",
                "no ladder until slots are free",
                "17",
            ],
        ),
        (
            route(live=False, refused=True),
            ["would be refused: no route for 'alice': fra1: lease used up"],
        ),
        (
            route(live=False, refused=True, table=False),
            ["no routing table has come yet"],
        ),
    ],
    ids=["live", "would go", "refused", "no table"],
)
def test_explain_says_where_by_which_rule_and_why_not_elsewhere(
    tmp_path: Path, answer: RouteAnswer, texts: list[str]
) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [], [answer]):
        shown = Answer("route", "explain", "alice", "--socket", socket).out
        for text in texts:
            assert text in shown
        (told,) = json.loads(Answer("route", "explain", "alice", "--socket", socket, "--json").out)
        assert told["live"] == answer.live


def test_explain_says_that_a_channel_was_shed(tmp_path: Path) -> None:
    socket, told = tmp_path / "admin.sock", route(live=False)
    told.shed = "shed: link fra-ams to ams is full, order 3, 12 s ago"
    with edged_at(socket, [], [told]):
        assert told.shed in Answer("route", "explain", "alice", "--socket", socket).out


def test_explain_asks_of_a_stream_of_another_sort(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    ASKED.clear()
    with edged_at(socket, [], [route(live=False)]):
        options = ("--class", "partner", "--tag", "a b", "--tag", "c", "--protocol", "rtmps")
        assert Answer("route", "explain", "alice", "--socket", socket, *options).code == 0
        assert Answer("route", "explain", "alice", "--socket", socket).code == 0
    assert ASKED == [
        {"channel": "alice", "class": "partner", "tags": '["a b","c"]', "protocol": "rtmps"},
        {"channel": "alice"},
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


WAY = ChannelWay(
    source="fra1",
    origin="fra1",
    origin_ms=80.04,
    relay="",
    relay_ms=None,
    why="no PoP is ordered to relay it here",
    held=False,
    rungs=None,
    relayed_on=0,
    viewers=5,
)


def plain(way: ChannelWay) -> list[str]:
    return [Text.from_markup(line).plain for line in describe_way(way)]


def test_how_viewers_here_get_a_channel_is_told() -> None:
    assert plain(WAY) == [
        "viewers here get it from its origin fra1 80.0 ms away: no PoP is ordered to relay it here"
    ]
    by_relay = structs.replace(
        WAY, source="lon1/0", relay="lon1/0", relay_ms=8.2, why="", rungs=["v1", "v2"], held=True
    )
    assert plain(by_relay) == [
        "viewers here get it from PoP lon1/0 8.2 ms away, as IRS orders; its origin fra1 80.0 ms"
        " away",
        "it is held here by order of IRS, watched or not",
        "of its video v1, v2 come before anybody asks, others on demand",
    ]
    refused = structs.replace(WAY, relay="lon1/0", why="avoided: it is silent", relayed_on=2)
    assert plain(refused) == [
        "viewers here get it from its origin fra1 80.0 ms away, not from PoP lon1/0, as IRS"
        " orders: avoided: it is silent",
        "it goes on from here to 2 other PoPs",
    ]
    nowhere = structs.replace(WAY, source="", why="nobody here watches it, and nothing orders it")
    assert plain(nowhere) == [
        "viewers here would get it from its origin fra1 80.0 ms away: nobody here watches it, and"
        " nothing orders it"
    ]
    assert plain(structs.replace(WAY, source="", origin="")) == []
