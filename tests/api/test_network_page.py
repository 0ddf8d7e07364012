"""What the scripts of the network page make of lines that IRS's own history gives, in Node."""

import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import cast

import pytest

from edged.policy.network_history import BLOCK_LINES, KEEPS_S, SAMPLE_INTERVAL_S, NetworkHistory
from edged.policy.network_sample import (
    LINK_STATES,
    ORIGIN_STATES,
    IrsPoint,
    LinkPlace,
    NetworkEvent,
    NetworkMap,
    NetworkSample,
    SitePlace,
)
from tests.node import run_module

run = partial(run_module, Path(str(resources.files("edged.api.web"))))

RUN = "0a1b2c3d"
BEGAN = 1_700_000_000.0
MAP = NetworkMap(
    sites=(
        SitePlace("ams", 52.4, 4.9),
        SitePlace("nyc", 40.7, -74.0),
        SitePlace("nrt", 35.7, 139.7),
    ),
    links=(
        LinkPlace("ams-nyc", ("ams", "nyc"), 1000.0),
        LinkPlace("nrt-nyc", ("nrt", "nyc"), 500.0),
    ),
    site_of_pop={"ams": "ams", "nyc": "nyc", "nrt": "nrt"},
    site_of_origin={"nyc1": "nyc"},
)
IMPORTS = """
const { History } = await import(`${web}/history.js`);
const { lines, verdict, told, concerns } = await import(`${web}/events.js`);
const { arrange, fit, spread, label } = await import(`${web}/layout.js`);
const { wrapped, loadStep, project, TURN } = await import(`${web}/layout.js`);
const say = (value) => console.log(JSON.stringify(value));
"""


def sample(number: int, **more: object) -> NetworkSample:
    """The number is in all of it."""
    used = number % 100
    given: dict[str, object] = {
        "at": BEGAN + SAMPLE_INTERVAL_S * number,
        "irs": IrsPoint(standing="active", epoch=7, version=number),
        "pops": {
            "ams": (1, 0, number, 2, 0, 0, 40),
            "nrt": (1, 0, 3, 0, 0, 0, -1),
            "nyc": (1, 0, 5, 1, 0, 0, -1),
        },
        "origins": {"nyc1": (0, 1, 100, used, 1, 2, used, 100)},
        "links": {"ams-nyc": (0, used, 7, 740, 0, 0), "nrt-nyc": (0, 1, 1, -1, -1, 0)},
        "flows": {("ams", "nyc1"): number, ("nrt", "nyc1"): 3},
    }
    return NetworkSample(**{**given, **more})  # type: ignore[arg-type]


def history_of(samples: list[NetworkSample], events: dict[int, list[NetworkEvent]]) -> bytes:
    """All lines of a history, as they were given."""
    history = NetworkHistory(RUN)
    text, cursor = b"", ""
    for number, each in enumerate(samples):
        history.add(each, MAP, events.get(number, []))
        while lines := history.after(cursor).text:
            text += lines
            cursor = f"{RUN}-{json.loads(lines.splitlines()[-1])['seq']}"
    return text


def ask(text: bytes, script: str) -> object:
    return run(f"{IMPORTS}\nconst text = {json.dumps(text.decode())};\n{script}")


def test_every_moment_is_as_it_was_in_whatever_order_it_is_looked_at() -> None:
    count = 2 * BLOCK_LINES + 10
    text = history_of([sample(number) for number in range(count)], {})
    order = [count - 1, 0, 70, 69, 71, 3, count - 2, 120]
    found = ask(
        text,
        f"""
        const past = new History();
        const pieces = text.split("\\n").filter(Boolean);
        for (const piece of pieces) past.take(`${{piece}}\\n`);
        say({json.dumps(order)}.map((index) => {{
          const seen = past.at(index);
          const [ams] = seen.pops;
          return [seen.at, ams.streams, seen.origins[0].used, seen.links[0].use_percent,
            seen.flows[0], seen.totals.streams, past.indexAt(seen.at)];
        }}).concat([past.cursor]));
        """,
    )
    assert isinstance(found, list)
    assert found.pop() == f"{RUN}-{count}"
    for index, told in zip(order, found, strict=True):
        flows = max((index, "ams"), (3, "nrt"))
        assert told == [
            BEGAN + SAMPLE_INTERVAL_S * index,
            index,
            index % 100,
            index % 100,
            {"pop": flows[1], "origin": "nyc1", "units": flows[0]},
            index + 8,
            index,
        ]


def test_an_hour_is_kept_and_another_run_begins_anew() -> None:
    count = round(1.5 * KEEPS_S / SAMPLE_INTERVAL_S)
    text = history_of([sample(number) for number in range(count)], {})
    found = ask(
        text,
        """
        const past = new History();
        for (const line of text.split("\\n").filter(Boolean)) past.take(line);
        const kept = [past.last + 1, past.samples[0].begins, past.at(0).at, past.at(past.last).at];
        const other = text.split("\\n")[0].replace("0a1b2c3d", "ffff");
        past.take(other);
        say([...kept, past.last, past.cursor]);
        """,
    )
    assert isinstance(found, list)
    kept, begins, first, last, after, cursor = found
    hour = KEEPS_S / SAMPLE_INTERVAL_S
    assert hour <= kept <= hour + BLOCK_LINES + 1
    assert begins
    assert last - first >= KEEPS_S
    assert (after, cursor) == (0, "ffff-1")


def test_a_gap_is_an_error_and_not_a_wrong_picture() -> None:
    lines = history_of([sample(number) for number in range(5)], {}).splitlines(keepends=True)
    found = ask(
        lines[0] + lines[1] + lines[3],
        "try { new History().take(text); } catch (error) { say(error.message); }",
    )
    assert found == "the history has a gap; load the page again"


UP, CUT = LINK_STATES.index("up"), LINK_STATES.index("cut")
DOWN, DRAIN = ORIGIN_STATES.index("down"), ORIGIN_STATES.index("drain")


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({}, {"state": "ok", "text": "All is well", "rest": ""}),
        (
            {"links": {"ams-nyc": (CUT, 0, 0, -1, -1, 0), "nrt-nyc": (UP, 9, 91, 1, 0, 12)}},
            {"state": "bad", "text": "Link ams-nyc is cut", "rest": "Link nrt-nyc is filling"},
        ),
        (
            {"origins": {"nyc1": (DOWN, 0, 100, 0, 0, 0, 0, 100)}},
            {"state": "bad", "text": "Origin nyc1 is down", "rest": ""},
        ),
        (
            {"origins": {"nyc1": (DRAIN, 1, 100, 9, 0, 0, 9, 100)}},
            {"state": "warn", "text": "Origin nyc1 is drained", "rest": ""},
        ),
        (
            {"pops": {"ams": (0, 0, 0, 0, 0, 0, 0), "nyc": (0, 0, 0, 0, 0, 0, 0)}, "flows": {}},
            {"state": "bad", "text": "PoPs ams and nyc are not connected", "rest": ""},
        ),
        (
            {"pops": {"ams": (1, 0, 1, 9, 0, 2, 0)}, "flows": {}},
            {"state": "warn", "text": "2 streams found no place", "rest": ""},
        ),
    ],
)
def test_a_moment_in_a_sentence(more: dict[str, object], verdict: dict[str, str]) -> None:
    text = history_of([sample(0, **more)], {})
    script = "const past = new History(); past.take(text); say(verdict(past.at(0)));"
    assert ask(text, script) == verdict


def event(kind: str, **more: object) -> NetworkEvent:
    at = cast("float", more.pop("at", BEGAN))
    return NetworkEvent(at=at, kind=kind, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "state", "head", "rest"),
    [
        (
            event("moved", origin="a", to="b", before="migrate", why="link l to nyc", count=3),
            *("ok", "3 streams moved", "the link l to nyc has too much to carry"),
        ),
        (
            event("moved", origin="a", to="b", before="drain"),
            *("ok", "1 stream left a", "it drains"),
        ),
        (
            event("moved", origin="a", to="b", before="no progress", count=2),
            *("warn", "2 streams left a", "it failed: no progress"),
        ),
        (
            event("moved", origin="a", to="b", before="migrate", why="nearer"),
            *("ok", "1 stream moved", "another origin is nearer, and has room"),
        ),
        (
            event("kept", origin="a", to="b", why="no room", count=4),
            *("warn", "4 streams stayed at a, not moved to b", "no room"),
        ),
        (
            event("shed", origin="a", link="l to nyc", why="basic", count=4),
            *("bad", "4 streams of a shed", "the link l to nyc is full, and basic goes first"),
        ),
        (
            event("full", link="l to nyc", after="begun", why="basic"),
            *("bad", "Link l to nyc has no room for basic", "new ones cross it as others leave"),
        ),
        (
            event("full", link="l to nyc", after="over"),
            *("ok", "Link l to nyc has room for all classes again", ""),
        ),
        (
            event("origin", origin="a", before="up", after="down", why="3 missed"),
            *("bad", "Origin a is down", "3 missed"),
        ),
        (
            event("link", link="l", before="up", after="cut", why="silent"),
            *("bad", "Link l is cut", "silent"),
        ),
        (event("link", link="l", before="unknown", after="up"), "ok", "Link l is up", ""),
        (event("link", link="l", before="cut", after="up"), "ok", "Link l is up again", ""),
        (
            event("link", link="l", after="filling", count=91),
            "warn",
            "Link l is filling: 91 % used",
            "",
        ),
        (
            event("drain", origin="a", after="begun", why="anna"),
            "warn",
            "Drain of a begins",
            "asked by anna",
        ),
        (
            event("limit", link="l", before="maintenance", after="begun", why="4711", count=0),
            *("warn", "l: not to be used", "4711 (maintenance)"),
        ),
        (event("pop", pop="p", after="gone"), "bad", "PoP p is not connected", ""),
        (
            event("irs", before="standby", after="active", count=9),
            "ok",
            "IRS is the active one",
            "epoch 9",
        ),
        (
            event("plans", after="without", why="no solution"),
            *("warn", "Plans are made without the solver", "no solution"),
        ),
        (event("room", after="lacking", count=4), "bad", "No room anywhere for 4 units", ""),
        (event("more", count=44), "idle", "And 44 more of which no note was kept", ""),
    ],
)
def test_what_happened_in_a_sentence(told: NetworkEvent, state: str, head: str, rest: str) -> None:
    text = history_of([sample(0)], {0: [told]})
    found = ask(text, "const past = new History(); past.take(text); say(told(past.events[0]));")
    assert isinstance(found, dict)
    assert (found["state"], found["head"], found["rest"]) == (state, head, rest)


def test_the_same_move_of_many_pops_is_one_line() -> None:
    def moved(number: int, pop: str, to: str = "b") -> NetworkEvent:
        at = BEGAN + SAMPLE_INTERVAL_S * number
        return event("moved", at=at, pop=pop, origin="a", to=to, before="drain", count=2)

    happened = {
        0: [moved(0, "ams"), event("wanted", origin="a", to="b")],
        1: [moved(1, "nrt"), moved(1, "nyc"), moved(1, "ams", "c")],
        30: [moved(30, "ams")],
    }
    text = history_of([sample(number) for number in range(31)], happened)
    found = ask(
        text,
        """
        const past = new History(); past.take(text);
        say([lines(past.events), lines(past.events, { about: "origin c" })].map((all) =>
          all.map((line) => [line.head, line.where])));
        """,
    )
    assert found == [
        [
            ["2 streams left a", "a → b · at ams"],
            ["8 streams left a", "a → b 6 and a → c 2 · at ams, nrt and nyc"],
        ],
        [["2 streams left a", "a → c · at ams"]],
    ]


def test_sites_with_coordinates_are_a_map_and_others_rings() -> None:
    located = history_of([sample(0)], {})
    script = """
    const past = new History(); past.take(text);
    const seen = past.at(0);
    const map = arrange(seen);
    const rings = arrange({ ...seen, sites: seen.sites.map(([name]) => [name, null, null]) });
    const again = arrange({ ...seen, sites: seen.sites.map(([name]) => [name, null, null]) });
    const at = (found, key) => found.places.get(key);
    const same = ({ x, y }, other) => x === other.x && y === other.y;
    say([
      map.mode, same(at(map, "pop nyc"), at(map, "origin nyc1")),
      at(map, "pop ams").x > at(map, "pop nyc").x, at(map, "pop ams").y < at(map, "pop nyc").y,
      rings.mode, same(at(rings, "pop nyc"), at(rings, "origin nyc1")),
      same(at(rings, "pop ams"), at(rings, "pop nrt")),
      JSON.stringify([...rings.places]) === JSON.stringify([...again.places]), rings.places.size,
    ]);
    """
    assert ask(located, script) == ["map", True, True, True, "ring", True, False, True, 4]


def test_a_link_across_the_pacific_goes_across_the_pacific() -> None:
    found = run(
        f"""{IMPORTS}
        const [nrt, sjc] = [project(35.7, 139.7), project(37.3, -121.9)];
        say([wrapped(nrt, sjc).map(([from, to]) => Math.abs(to.x - from.x) < TURN / 3),
          wrapped(project(0, 10), project(0, 20)).length]);
        """
    )
    assert found == [[True, True], 1]


def test_circles_are_pushed_apart_and_heavy_ones_stay() -> None:
    found = run(
        f"""{IMPORTS}
        const circles = Array.from({{ length: 60 }}, (_, index) => ({{
          x: 300 + 25 * Math.cos(index * 1.7), y: 200 + 25 * Math.sin(index * 2.3),
          r: 6, heavy: index < 3,
        }}));
        const at = spread(circles);
        let overlap = 0;
        at.forEach((one, index) => at.slice(index + 1).forEach((other) => {{
          overlap = Math.max(overlap, 12 - Math.hypot(one.x - other.x, one.y - other.y));
        }}));
        const away = ({{ x, y }}, index) => Math.hypot(x - circles[index].x, y - circles[index].y);
        const far = Math.max(...at.map(away));
        const again = spread(circles);
        say([overlap, far, JSON.stringify(at) === JSON.stringify(again)]);
        """
    )
    assert isinstance(found, list)
    overlap, far, same = found
    assert overlap < 3.0
    assert far < 90.0
    assert same


def test_labels_cover_neither_each_other_nor_circles() -> None:
    found = run(
        f"""{IMPORTS}
        const wanted = Array.from({{ length: 40 }}, (_, index) => ({{
          key: `n${{index}}`, x: 40 + 23 * (index % 8), y: 30 + 21 * Math.floor(index / 8),
          r: 5, width: 30, height: 13,
        }}));
        const found = label(wanted, wanted);
        const boxes = [...found].map(([key, {{ x, y, anchor }}]) => {{
          const left = anchor === "start" ? x : anchor === "end" ? x - 30 : x - 15;
          return {{ left, right: left + 30, top: y - 9, bottom: y }};
        }});
        let covered = 0;
        boxes.forEach((one, index) => boxes.slice(index + 1).forEach((other) => {{
          const beside = one.left >= other.right || one.right <= other.left;
          covered += !beside && one.top < other.bottom && one.bottom > other.top;
        }}));
        say([found.size > 3, found.size < 40, covered, found.has("n0")]);
        """
    )
    assert found == [True, True, 0, True]


def test_all_of_it_is_in_view_and_loads_have_steps() -> None:
    found = run(
        f"""{IMPORTS}
        const points = [{{ x: -1, y: -2 }}, {{ x: 3, y: 1 }}, {{ x: 0, y: 0 }}];
        const view = fit(points, 800, 400, 50);
        const at = points.map((point) => [view.k * point.x + view.x, view.k * point.y + view.y]);
        say([at.every(([x, y]) => x >= 49.9 && x <= 750.1 && y >= 49.9 && y <= 350.1),
          [null, 0, 49, 50, 89, 90, 99, 200].map(loadStep)]);
        """
    )
    assert found == [True, ["none", 0, 0, 1, 2, 3, 4, 4]]
