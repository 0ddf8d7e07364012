"""The kept hour: a reader that follows the lines has every sample, whenever it asks."""

import gzip
import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import hypothesis
import pytest
from hypothesis import strategies as st
from msgspec import Struct, structs

from edged.policy.network_history import (
    ANSWER_BYTES_MAX,
    BLOCK_BYTES_MAX,
    BLOCK_LINES,
    KEEPS_S,
    SAMPLE_INTERVAL_S,
    NetworkHistory,
)
from edged.policy.network_sample import (
    IrsPoint,
    LinkPlace,
    NetworkEvent,
    NetworkMap,
    NetworkSample,
    Pair,
    Row,
    SitePlace,
)

RUN = "0a1b2c3d"
POPS, ORIGINS = ("ams", "lhr", "nyc"), ("fra1", "lhr1")
MAP = NetworkMap(
    sites=(SitePlace("ams", 52.4, 4.9), SitePlace("lhr", 51.5, -0.1), SitePlace("lab")),
    links=(LinkPlace("ams-lhr", ("ams", "lhr"), 1000.0),),
    site_of_pop={"ams": "ams", "lhr": "lhr"},
    site_of_origin={"lhr1": "lhr"},
)


class Reader:
    """What the page makes of the lines."""

    def __init__(self) -> None:
        self.cursor = ""
        self.whole: dict[str, list[list[object]]] = {}
        self.rows: dict[str, dict[int, list[int]]] = {}
        self.flows: dict[tuple[int, int], int] = {}
        self.relays: dict[tuple[int, int], int] = {}
        self.events: list[object] = []
        self.seen: list[dict[str, object]] = []

    def take(self, text: bytes) -> None:
        for raw in text.splitlines():
            line = json.loads(raw)
            if "whole" in line:
                self.whole = line["whole"]
                self.rows, self.flows = {"pops": {}, "origins": {}, "links": {}}, {}
                self.reach, self.relays = dict[int, list[int]](), {}
            for place, *row in line.get("reach", ()):
                self.reach[place] = row
            for what, rows in self.rows.items():
                for place, *row in line.get(what, ()):
                    rows[place] = row
            for what, known in (("flows", self.flows), ("relays", self.relays)):
                changed = line.get(what, [])
                for one, other, n in zip(changed[::3], changed[1::3], changed[2::3], strict=True):
                    if n:
                        known[one, other] = n
                    else:
                        del known[one, other]
            self.events += line.get("events", [])
            self.cursor = f"{RUN}-{line['seq']}"
            self.seen.append(self.state(line["at"]))

    def state(self, at: float) -> dict[str, object]:
        names = {what: [str(row[0]) for row in self.whole[what]] for what in self.rows}
        return {
            "at": at,
            **{
                what: {names[what][place]: tuple(row) for place, row in rows.items()}
                for what, rows in self.rows.items()
            },
            "flows": {
                (names["pops"][pop], names["origins"][origin]): units
                for (pop, origin), units in self.flows.items()
            },
            "reach": {
                names["pops"][place]: tuple(row) for place, row in self.reach.items() if any(row)
            },
            "relays": {
                (names["pops"][one], names["pops"][other]): channels
                for (one, other), channels in self.relays.items()
            },
        }


def expected(sample: NetworkSample) -> dict[str, object]:
    return {
        "at": round(sample.at, 2),
        "pops": dict(sample.pops),
        "origins": dict(sample.origins),
        "links": dict(sample.links),
        "flows": {pair: units for pair, units in sample.flows.items() if units},
        "reach": {name: row for name, row in sample.reach.items() if any(row)},
        "relays": {pair: channels for pair, channels in sample.relays.items() if channels},
    }


def sample_at(
    number: int,
    pops: Mapping[str, Row] | None = None,
    flows: Mapping[Pair, int] | None = None,
    reach: Mapping[str, Row] | None = None,
    relays: Mapping[Pair, int] | None = None,
) -> NetworkSample:
    return NetworkSample(
        at=1000.0 + SAMPLE_INTERVAL_S * number,
        irs=IrsPoint(standing="alone", epoch=1, version=number),
        pops=pops or {"ams": (1, 0, number, 0, 0, 0, 50)},
        origins={"fra1": (0, 1, 100, number % 100, 0, 0, number % 100, 100)},
        links={"ams-lhr": (0, 10, 20, 30, 0, 0)},
        flows=flows or {},
        reach=reach or {},
        relays=relays or {},
    )


ROWS = st.tuples(*[st.integers(-1, 9)] * 7)


@st.composite
def samples(draw: st.DrawFn) -> list[NetworkSample]:
    known = st.dictionaries(st.sampled_from(POPS), ROWS, min_size=1)
    pairs = st.sampled_from(list(itertools.product(POPS, ORIGINS)))
    count = draw(st.integers(1, 2 * BLOCK_LINES))
    rng = random.Random(draw(st.integers(0, 2**32)))  # noqa: S311 - a test's
    worlds = [draw(known) for _ in range(3)]
    moves = [draw(st.dictionaries(pairs, st.integers(0, 5))) for _ in range(3)]
    made = []
    for number in range(count):
        pops = rng.choice(worlds[: 1 + rng.randrange(3)])
        flows = {pair: n for pair, n in rng.choice(moves).items() if pair[0] in pops}
        flows = {pair: n for pair, n in flows.items() if pair[1] == "fra1"}
        reach = {name: (rng.randrange(3), rng.randrange(2), 0) for name in pops}
        relays = {
            (one, other): rng.randrange(3)
            for one, other in itertools.permutations(sorted(pops), 2)
            if rng.random() < 0.5
        }
        made.append(sample_at(number, pops, flows, reach, relays))
    return made


@hypothesis.given(samples(), st.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_a_reader_has_every_sample_however_often_it_asks(
    made: list[NetworkSample], data: st.DataObject
) -> None:
    history, reader = NetworkHistory(RUN), Reader()
    asks = data.draw(st.sets(st.integers(0, len(made) - 1)))
    for number, sample in enumerate(made):
        history.add(sample, MAP, [])
        if number in asks:
            reader.take(history.after(reader.cursor).text)
    while text := history.after(reader.cursor).text:
        reader.take(text)
    assert reader.seen == [expected(sample) for sample in made]


@hypothesis.given(samples())
@hypothesis.settings(max_examples=12, deadline=None)
def test_gzip_is_the_same_text_and_a_tag_names_its_bytes(made: list[NetworkSample]) -> None:
    history = NetworkHistory(RUN)
    known: dict[str, bytes] = {}
    for sample in made:
        history.add(sample, MAP, [])
        cursor = ""
        while (lines := history.after(cursor)).text:
            if lines.gzip is not None:
                assert gzip.decompress(lines.gzip) == lines.text
            assert known.setdefault(lines.tag, lines.text) == lines.text
            cursor = f"{RUN}-{json.loads(lines.text.splitlines()[-1])['seq']}"


def read_all(history: NetworkHistory) -> Reader:
    reader = Reader()
    while text := history.after(reader.cursor).text:
        reader.take(text)
    return reader


def test_an_hour_is_kept_and_the_oldest_goes() -> None:
    history = NetworkHistory(RUN)
    count = round(1.5 * KEEPS_S / SAMPLE_INTERVAL_S)
    for number in range(count):
        history.add(sample_at(number), MAP, [])
    kept = history.statistics()
    block_s = BLOCK_LINES * SAMPLE_INTERVAL_S
    assert KEEPS_S <= kept.seconds <= KEEPS_S + block_s
    reader = read_all(history)
    assert reader.seen[-1] == expected(sample_at(count - 1))
    assert len(reader.seen) == kept.lines


@pytest.mark.parametrize(
    "cursor", ["", "nothing", f"{RUN}-0", "ffff-70", f"{RUN}-99999", f"{RUN}--1", f"{RUN}-1\n"]
)
def test_a_cursor_that_leads_nowhere_begins_with_the_oldest_block(cursor: str) -> None:
    history = NetworkHistory(RUN, keeps_s=60.0)
    for number in range(3 * BLOCK_LINES):
        history.add(sample_at(number), MAP, [])
    first = json.loads(history.after(cursor).text.splitlines()[0])
    assert "whole" in first
    assert first["seq"] > 1, "what is older has gone"


def test_a_sample_that_fails_costs_itself_alone() -> None:
    history = NetworkHistory(RUN)
    for number in range(3):
        history.add(sample_at(number), MAP, [])
    unknown = structs.replace(sample_at(3), links={"not-on-the-map": (0,) * 6})
    with pytest.raises(KeyError):
        history.add(unknown, MAP, [])
    for number in range(4, 6):
        history.add(sample_at(number), MAP, [])
    reader = read_all(history)
    assert reader.seen == [expected(sample_at(number)) for number in (0, 1, 2, 4, 5)]


def test_who_has_all_gets_nothing() -> None:
    history = NetworkHistory(RUN)
    assert history.after("").text == b""
    history.add(sample_at(0), MAP, [])
    assert history.after(f"{RUN}-1").text == b""
    history.add(sample_at(1), MAP, [])
    (line,) = history.after(f"{RUN}-1").text.splitlines()
    assert "whole" not in json.loads(line)


def test_what_did_not_change_is_not_said_again() -> None:
    history = NetworkHistory(RUN)
    flows = {("ams", "fra1"): 7}
    history.add(sample_at(0, flows=flows), MAP, [])
    history.add(sample_at(0, flows=flows), MAP, [])
    assert json.loads(history.after(f"{RUN}-1").text).keys() == {"seq", "at"}


def test_a_whole_line_says_where_everything_is() -> None:
    history = NetworkHistory(RUN)
    history.add(sample_at(0, {"ams": (1,) * 7, "nyc": (1,) * 7}), MAP, [])
    whole = json.loads(history.after("").text)["whole"]
    assert whole["sites"] == [["ams", 52.4, 4.9], ["lhr", 51.5, -0.1], ["lab", None, None]]
    assert whole["pops"] == [["ams", 0], ["nyc", -1]]
    assert whole["origins"] == [["fra1", -1]]
    assert whole["links"] == [["ams-lhr", 0, 1, 1000.0]]


def test_events_come_with_their_sample() -> None:
    history = NetworkHistory(RUN)
    events = [NetworkEvent(at=1.0, kind="drain", origin="fra1", after="begun", why="anna")]
    history.add(sample_at(0), MAP, events)
    history.add(sample_at(1), MAP, [])
    assert read_all(history).events == [
        {"at": 1.0, "kind": "drain", "origin": "fra1", "after": "begun", "why": "anna"}
    ]


class World(Struct):
    """The largest that is allowed for: every PoP has streams at every origin."""

    pops: Sequence[str]
    origins: Sequence[str]
    links: Sequence[str]
    rng: random.Random
    map: NetworkMap

    def sample(self, number: int) -> NetworkSample:
        def row(length: int) -> Row:
            return tuple(self.rng.randrange(1000) for _ in range(length))

        return NetworkSample(
            at=SAMPLE_INTERVAL_S * number,
            irs=IrsPoint(standing="active", epoch=1, version=number),
            pops={name: row(7) for name in self.pops},
            origins={name: row(8) for name in self.origins},
            links={name: row(6) for name in self.links},
            flows={
                pair: self.rng.randrange(1, 60)
                for pair in itertools.product(self.pops, self.origins)
            },
        )


def make_world() -> World:
    pops = [f"pop{number}" for number in range(200)]
    links = [f"link{number}" for number in range(300)]
    ends = [(pops[index % 200], pops[(7 * index + 1) % 200]) for index in range(300)]
    places = NetworkMap(
        sites=tuple(SitePlace(name, 1.5, 2.5) for name in pops),
        links=tuple(LinkPlace(name, pair, 1e5) for name, pair in zip(links, ends, strict=True)),
        site_of_pop={name: name for name in pops},
    )
    origins = [f"origin{number}" for number in range(99)]
    return World(pops, origins, links, random.Random(3), places)  # noqa: S311 - a test's


def test_bytes_are_bounded_when_all_of_a_large_network_changes_each_time() -> None:
    world = make_world()
    bytes_max = 2**20
    history = NetworkHistory(RUN, bytes_max=bytes_max)
    for number in range(9):
        history.add(world.sample(number), world.map, [])
        kept = history.statistics()
        # One block is always there, to its limit and one line beyond it, and what it is deflated.
        assert kept.bytes <= max(bytes_max, 2.5 * BLOCK_BYTES_MAX)
    assert kept.lines < 9, "the oldest have gone"
    reader = read_all(history)
    assert len(reader.seen) == kept.lines
    assert len(cast("dict[object, int]", reader.seen[-1]["flows"])) == 200 * 99


def texts(history: NetworkHistory, cursor: str) -> Iterator[bytes]:
    while text := history.after(cursor).text:
        yield text
        cursor = f"{RUN}-{json.loads(text.splitlines()[-1])['seq']}"


def test_an_answer_is_bounded_but_has_a_line() -> None:
    world = make_world()
    history = NetworkHistory(RUN)
    for number in range(4):
        history.add(world.sample(number), world.map, [])
    for text in texts(history, f"{RUN}-1"):
        lines = text.splitlines()
        assert len(lines) == 1 or len(text) <= max(ANSWER_BYTES_MAX, BLOCK_BYTES_MAX + 2**19)
