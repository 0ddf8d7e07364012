"""What `edged top` shows, at the widths that terminals have."""

import pytest
from msgspec import structs
from rich.console import Console

from edged.cli.top_screen import (
    STREAMS_MIN,
    WARNINGS_MAX,
    Screen,
    spark,
    stream_state,
)
from edged.policy.ladder_words import LadderSeen
from edged.roles.status import HealthSeen, LadderSlotsSeen, LiveCounts
from tests.cli.statuses import LINK, LONG_GOP, NO_IRS, pop, status, stream


def shown(screen: Screen, width: int, height: int = 60) -> list[str]:
    console = Console(width=width, height=height, highlight=False)
    with console.capture() as capture:
        console.print(screen, height=height)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 118, 140, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    many = tuple(stream(f"channel-{number}" * 3, warnings=(LONG_GOP,)) for number in range(9))
    lines = shown(Screen(status(many, warnings=9), 0), width)
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(
    ("width", "there", "absent"),
    [
        (80, ("Mbps", "fps", "GOP", "viewers"), ("60 s", "ring", "picture", "reconnects")),
        (100, ("60 s", "picture", "reconnects", "1280x720 h264"), ("ring",)),
        (140, ("60 s", "picture", "reconnects", "ring", "3.9 s"), ("jitter",)),
    ],
)
def test_columns_by_width(width: int, there: tuple[str, ...], absent: tuple[str, ...]) -> None:
    text = "\n".join(shown(Screen(status(), 10), width))
    for word in there:
        assert word in text, word
    for word in absent:
        assert word not in text, word
    for word in ("alice", "west → fra1", "6.10", "30.0", "2.0 s", "1234", "1:02:05"):
        assert word in text, word


def test_the_process_the_roles_and_the_links() -> None:
    lines = shown(Screen(status(), 10), 120)
    assert lines[0] == "edged 0.1.0  pid 4242  up 1:02:05  cpu 21 %  rss 300 MiB  fds 110/20000"
    assert lines[1] == "1 live  1234 viewers  in 18.2  out 421 Mbps  lag 2.4 ms  ● no warnings"
    text = " ".join(" ".join(lines).split())
    assert "table v42, 1 PoP, 1 of 1 origins up" in text
    assert "up, 3 of 500 slots, 1 PoP" in text
    assert "table v42, 3 publishers, 7 viewers" in text
    assert "● west → fra1 up 7.1 ms 3 2 18.2 5.00 0 1" in text
    assert "● lhr → fra9 4 sessions 2 1.00 2.00" in text, "an origin's own PoPs are elsewhere"


def test_jitter_is_shown_where_it_is_known() -> None:
    text = "\n".join(shown(Screen(status((stream(jitter_ms=12.4),)), 10), 140))
    assert "jitter" in text
    assert "12 ms" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sessions": []}, "✕ west → fra1 down"),
        ({"sessions": ["control"]}, "▲ west → fra1 1 of 4"),
    ],
)
def test_links_that_are_not_well(changes: dict[str, list[str]], words: str) -> None:
    link = structs.replace(LINK, **changes)
    lines = shown(Screen(status(pops=(pop(links=(link,)),)), 10), 100)
    assert words in " ".join(" ".join(lines).split())


def test_an_origin_that_is_not_up_shows_in_its_link() -> None:
    west = pop()
    (origin,) = west.origins
    for state, mark in (("down", "✕"), ("drain", "▲")):
        seen = structs.replace(west, origins=[structs.replace(origin, state=state)])
        text = " ".join(" ".join(shown(Screen(status(pops=(seen,)), 10), 100)).split())
        assert f"{mark} west → fra1 origin {state}" in text


def test_a_pop_without_irs_or_table() -> None:
    text = "\n".join(shown(Screen(status(pops=(pop(irs=NO_IRS),)), 10), 100))
    assert "no IRS for 12 s, table v42" in text
    blind = structs.replace(pop(), table=None)
    assert "no routing table yet" in "\n".join(shown(Screen(status(pops=(blind,)), 10), 100))


def test_warnings_are_lines_below_and_are_limited() -> None:
    many = tuple(stream(f"c{number}", warnings=(LONG_GOP,)) for number in range(WARNINGS_MAX + 3))
    lines = shown(Screen(status(many, warnings=len(many)), 50), 80)
    assert f"▲ {len(many)} warnings" in lines[1]
    told = [line for line in lines if "Your keyframe interval" in line]
    assert len(told) == WARNINGS_MAX
    assert all(len(line) <= 80 and line.endswith("…") for line in told)
    assert "and 3 more warnings" in lines


def test_ladders_are_told_where_they_are_made() -> None:
    made = LadderSeen(state="running", text="ladder: 720p 480p", rungs=["720p", "480p"], slots=45)
    shed = LadderSeen(
        state="running", text="ladder: 480p; rung 720p shed: 2.1 s behind", rungs=["480p"],
        shed=["720p"],
    )  # fmt: skip
    waits = LadderSeen(state="preempted", text="ladder preempted for partner [red]bob")
    streams = tuple(
        structs.replace(stream(name), ladder=ladder)
        for name, ladder in (("one", made), ("two", shed), ("three", waits), ("four", None))
    )
    slots = LadderSlotsSeen(total=100, used=90, made=2, waiting=1, preempted=1, text="")
    seen = structs.replace(
        status(streams), origins=[structs.replace(status().origins[0], ladders=slots)]
    )
    lines = shown(Screen(seen, 10), 140)
    assert any("ladders 90 of 100 slots, 1 wait" in line for line in lines)
    (head,) = [line for line in lines if "channel" in line]
    column = head.index("ladder")
    rows = {line.split()[1]: line[column:] for line in lines if "west → fra1  1280" in line}
    assert rows["one"].startswith("2 rungs ")
    assert rows["two"].startswith("1 of 2 rungs ")
    assert rows["three"].startswith("preempted ")
    assert rows["four"].startswith("  ")
    assert "▲ two: ladder: 480p; rung 720p shed: 2.1 s behind" in lines
    assert "▲ three: ladder preempted for partner [red]bob" in lines
    assert not any(line.startswith("▲ one") for line in lines)
    without = shown(Screen(status((stream(),)), 10), 140)
    assert not [line for line in without if "ladder" in line]


def test_as_many_streams_as_fit() -> None:
    many = tuple(stream(f"c{number:03}") for number in range(60))
    screen = Screen(status(many, matching=2000), 0)
    lines = shown(screen, 100, height=40)
    assert len(lines) <= 40
    rows = [line for line in lines if "west → fra1  1280" in line]
    assert len(rows) > 10
    assert f"and {2000 - len(rows)} more; --filter finds them" in lines
    assert len([line for line in shown(screen, 100, height=5) if "1280x720" in line]) == STREAMS_MIN
    limited = shown(Screen(status(many, matching=2000), 7), 100, height=40)
    assert len([line for line in limited if "1280x720" in line]) == 7


def test_nothing_is_live() -> None:
    assert shown(Screen(status(()), 10), 80)[-1] == "no live streams"
    filtered = structs.replace(status(), streams=[], streams_matching=0)
    assert shown(Screen(filtered, 10), 80)[-1] == "no live stream matches"


def test_an_edged_that_does_not_answer() -> None:
    screen = Screen(status(), 10, trouble="no edged answers at 'x'", age_s=7.4)
    assert shown(screen, 80)[0] == "no answer for 7 s: no edged answers at 'x'"


def test_names_from_outside_are_no_markup() -> None:
    lines = shown(Screen(status((stream("[/x] [red]"),)), 10), 140)
    assert any("[/x] [red]" in line for line in lines)


def test_states_of_streams() -> None:
    assert stream_state(stream()) == "ok"
    assert stream_state(stream(warnings=(LONG_GOP,))) == "warn"
    assert stream_state(stream(warnings=(structs.replace(LONG_GOP, severity="error"),))) == "bad"
    assert stream_state(stream(warnings=(structs.replace(LONG_GOP, severity="info"),))) == "ok"
    assert stream_state(structs.replace(stream(), state="silent")) == "bad"
    assert stream_state(structs.replace(stream(), state="waiting")) == "warn"


def test_a_stream_of_which_little_is_known() -> None:
    bare = structs.replace(
        stream(), state="elsewhere", route=None, tracks=[], health=HealthSeen(), origin=""
    )
    text = " ".join(" ".join(shown(Screen(status((bare,)), 10), 140)).split())
    assert "● alice nowhere" in text


def test_a_stream_that_waits_for_its_publisher() -> None:
    waiting = structs.replace(stream(), state="waiting", waiting_s=7.0)
    lines = shown(Screen(status((waiting,)), 10), 80)
    assert any(line.startswith("▲ alice") and line.endswith("waits 0:07") for line in lines)


def test_sparks() -> None:
    assert spark([], floor=1.0) == ""
    assert spark([0.0, 0.0], floor=1.0) == "▁▁"
    assert spark([0.0, 4.0, 8.0], floor=1.0) == "▁▅█"
    assert spark([1.0] * 50, floor=100.0) == "▁" * 12


def test_an_irs_that_stands_by_says_so() -> None:
    network = status()
    (irs,) = network.irs
    network = structs.replace(network, irs=[structs.replace(irs, standing="standby")])
    assert "standby, table v42, 1 PoP" in "\n".join(shown(Screen(network, 10), 100))
    live = LiveCounts(channels=7, conflicts=0, conflicts_first=[], partial={})
    for conflicts, said in ((0, "7 live in the network"), (2, "network, 2 at several PoPs")):
        irs = structs.replace(irs, live=structs.replace(live, conflicts=conflicts))
        network = structs.replace(network, irs=[irs])
        assert said in "\n".join(shown(Screen(network, 10), 170))
