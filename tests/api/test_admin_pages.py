"""The status page's files as they are served, and what its scripts say, in Node."""

import json
import re
from functools import partial
from importlib import resources
from pathlib import Path

import pytest

from edged.api.admin_pages import ASSETS, CONTENT_SECURITY_POLICY, PAGES, make_pages
from tests.node import run_module

LINKS = re.compile(r'(?:src|href)="([^"]+)"')
IMPORTS = re.compile(r'from "\./([a-z]+\.js)"')


def test_every_link_is_served_and_every_file_linked() -> None:
    pages = make_pages()
    links = {link for path in PAGES for link in LINKS.findall(pages[path].body.decode())}
    assert links == pages.keys() | {"/", "/network"}
    assert len(pages) == len(ASSETS) + len(PAGES)


def test_scripts_import_only_what_is_served() -> None:
    folder = resources.files("edged.api.web")
    imported = {
        name
        for script in ASSETS
        if script.endswith(".js")
        for name in IMPORTS.findall((folder / script).read_text())
    }
    assert imported | {"status.js", "atlas.js"} == {name for name in ASSETS if name.endswith(".js")}


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    pages = make_pages()
    for name in PAGES:
        body = pages[name].body.decode()
        assert re.search(r"<script(?![^>]*\bsrc=)", body) is None
        assert re.search(r"<style|\bstyle=|\bon[a-z]+=", body) is None
    for path, page in pages.items():
        policy = dict(page.fields)["Content-Security-Policy"]
        assert policy == CONTENT_SECURITY_POLICY
        if not path.endswith((".svg", ".js")):
            assert "http" not in page.body.decode(), path
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_files_may_be_kept_and_the_page_not() -> None:
    pages = make_pages()
    for path, page in pages.items():
        assert page.cache_control == (
            "no-cache" if path in PAGES else "private, max-age=31536000, immutable"
        )


VIDEO = "{kind: 'video', width: 1280, height: 720, fps: 29.97, codec: 'h264'}"
run = partial(run_module, Path(str(resources.files("edged.api.web"))))


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ("bits(0)", ["0.00", "Mbps"]),
        ("bits(9.994e6)", ["9.99", "Mbps"]),
        ("bits(9.996e6)", ["10.0", "Mbps"]),
        ("bits(123.4e6)", ["123", "Mbps"]),
        ("bits(1.5e9)", ["1.50", "Gbps"]),
        ("bits(290e9)", ["290", "Gbps"]),
        ("duration(59.9)", "0:59"),
        ("duration(3725)", "1:02:05"),
        ("duration(90000)", "1\u00a0d 1:00\u00a0h"),
        ("ms(null)", "\u2013"),
        ("ms(0.42)", "0.4\u00a0ms"),
        ("bytes(5 * 2 ** 20)", "5.0\u00a0MiB"),
        ("plural(1, 'stream')", "1 stream"),
        ("plural(2000, 'stream')", "2,000 streams"),
        ("shorten('abcdef', 4)", "abc…"),
        (f"picture({{tracks: [{VIDEO}]}})", "1280\u00d7720\u2009@\u200929.97 H.264"),
        (f"picture({{tracks: [{VIDEO}]}}, {{rate: false}})", "1280\u00d7720 H.264"),
    ],
)
def test_numbers_in_words(call: str, shown: object) -> None:
    names = "bits, duration, ms, bytes, plural, picture, shorten"
    script = (
        f"const {{ {names} }} = await import(`${{web}}/words.js`);"
        f"console.log(JSON.stringify({call}));"
    )
    assert run(script) == shown


NETWORK = """
const { network, findings, headline, line } = await import(`${web}/network.js`);
const irs = { connected: true, for_s: 9 };
const seen = (origin, more = {}) => ({
  origin, address: "192.0.2.1:1", state: "up", blocked: "", slots_total: 40, slots_free: 30,
  ...more,
});
const link = (origin, more = {}) => ({
  origin, sessions: ["a", "b", "c", "d"], sessions_wanted: 4, down: "", rtt_ms: 1, forwardings: 1,
  subscriptions: 0, out_bps: 1e6, in_bps: 0, units_skipped: 0, reconnects: 0, ...more,
});
const pop = (name, more = {}) => ({
  pop: name, role: `pop ${name}`, publishers: 1, viewers: 2, in_bps: 1e6, out_bps: 2e6,
  table: [1, 42], table_age_s: 1, irs, links: [link("fra1")], origins: [seen("fra1")], ...more,
});
const status = (more = {}) => ({
  process: { fds: 10, fds_max: 100 },
  totals: { streams: 1, viewers: 2, warned_streams: 0, warnings: 0 },
  roles: [{ role: "pop west", lag_ms: 1 }], pops: [pop("west")], origins: [], irs: [], ...more,
});
const told = (one) => {
  const net = network(one);
  const found = findings(one, net);
  const head = headline(one, net, found);
  const rest = found.map((each, index) => line(each, index === 0));
  const { pops, origins, links } = net;
  return { ...head, lines: rest, pops, origins, links };
};
const say = (one) => console.log(JSON.stringify(told(one)));
"""


def tell(status: str) -> dict[str, object]:
    found = run(f"{NETWORK}\nsay({status});")
    assert isinstance(found, dict)
    return found


def test_all_is_well() -> None:
    told = tell("status()")
    assert (told["state"], told["text"], told["lines"]) == ("ok", "All is well", [])
    assert told["rest"] == "One stream is live, 2 viewers. 1 PoP and 1 origin, IRS connected."


def test_an_origin_that_is_down_is_said_first() -> None:
    told = tell(
        """status({
          totals: { streams: 3, viewers: 0, warned_streams: 2, warnings: 2 },
          pops: [pop("west", {
            links: [link("fra1", { sessions: [], down: "link down: closed" }), link("fra2")],
            origins: [
              seen("fra1", { state: "down", blocked: "link down: closed" }), seen("fra2"),
            ],
          })],
        })"""
    )
    assert told["state"] == "bad"
    assert told["text"] == "Origin fra1 is down, and 1 more thing to look at"
    assert told["lines"] == [
        "Its streams go on elsewhere, where there is room. Its link: closed.",
        "2 streams have a warning for their broadcasters, see the list below.",
    ]
    links = told["links"]
    assert isinstance(links, list)
    assert [(link["origin"], link["state"], link["word"]) for link in links] == [
        ("fra1", "bad", "down"),
        ("fra2", "ok", "up"),
    ]


@pytest.mark.parametrize(
    ("status", "state", "text"),
    [
        (
            'status({ pops: [pop("west", { irs: { connected: false, for_s: 75 } })] })',
            "warn",
            "PoP west has had no IRS for 1\u00a0min",
        ),
        (
            'status({ pops: [pop("west", { table: null })] })',
            "bad",
            "PoP west has no routing table yet",
        ),
        (
            'status({ pops: [pop("west", { origins: [seen("fra1", { state: "suspect", '
            'blocked: "suspect by its heartbeats here" })] })] })',
            "bad",
            "PoP west has no origin that takes streams, and 1 more thing to look at",
        ),
        (
            'status({ roles: [{ role: "pop west", lag_ms: 700 }] })',
            "bad",
            "The loop of pop west is 700 ms late",
        ),
        (
            'status({ roles: [{ role: "pop west", lag_ms: 120 }] })',
            "warn",
            "The loop of pop west is 120 ms late",
        ),
        (
            'status({ pops: [pop("west", { origins: [seen("fra1", { slots_free: 0 })] })] })',
            "warn",
            "Origin fra1 is full",
        ),
        (
            'status({ pops: [pop("west", { links: [link("fra1", { sessions: ["a"] })] })] })',
            "warn",
            "The link west → fra1 is incomplete",
        ),
        (
            "status({ process: { fds: 81, fds_max: 100 } })",
            "warn",
            "81 of 100 file descriptors are open",
        ),
        (
            "status({ totals: { streams: 9, viewers: 0, warned_streams: 1, warnings: 1 } })",
            "warn",
            "1 stream has a warning for its broadcaster",
        ),
    ],
)
def test_what_is_wrong_in_a_headline(status: str, state: str, text: str) -> None:
    told = tell(status)
    assert (told["state"], told["text"]) == (state, text)


def test_a_host_of_irs_alone_sees_the_whole_network() -> None:
    told = tell(
        """status({ pops: [], roles: [{ role: "irs", lag_ms: 0 }], irs: [{
          role: "irs", version: 7,
          pops: [
            {
              pop: "ams1/1", connected: true, acked: [1, 7],
              streams: { fra1: 3 }, rtt_ms: { fra1: 2, fra2: 9 },
            },
            {
              pop: "ams1/2", connected: true, acked: [1, 7],
              streams: { fra1: 4 }, rtt_ms: { fra1: 2 },
            },
            { pop: "lhr/1", connected: false, streams: {}, rtt_ms: {}, acked: null },
          ],
          origins: [
            { origin: "fra1", state: "up", slots_total: 40, slots_free: 33, address: "a" },
            { origin: "fra2", state: "drain", slots_total: 40, slots_free: 40, address: "b" },
          ],
        }] })"""
    )
    pops, origins = told["pops"], told["origins"]
    assert isinstance(pops, list)
    assert isinstance(origins, list)
    assert [(pop["name"], pop["publishers"], pop["state"]) for pop in pops] == [
        ("ams1", 7, "ok"),
        ("lhr", 0, "warn"),
    ]
    assert [(origin["name"], origin["state"], origin["used"]) for origin in origins] == [
        ("fra1", "ok", 7),
        ("fra2", "warn", 0),
    ]
    links = told["links"]
    assert isinstance(links, list)
    assert [(link["pop"], link["origin"], link["streams"]) for link in links] == [
        ("ams1", "fra1", 7),
        ("ams1", "fra2", 0),
    ]


def test_a_host_of_an_origin_alone_sees_its_pops() -> None:
    told = tell(
        """status({ pops: [], origins: [{
          origin: "fra1", state: "up", slots_total: 40, slots_used: 2, irs,
          pops: [{ pop: "west", sessions: 4, streams: 2, in_bps: 1e6, out_bps: 5e6 }],
        }] })"""
    )
    links = told["links"]
    assert isinstance(links, list)
    assert [(link["pop"], link["origin"], link["streams"], link["state"]) for link in links] == [
        ("west", "fra1", 2, "ok")
    ]
    assert told["state"] == "ok"


SEAT = {
    "for_s": 192.0, "leads": False, "grants": 0, "majority": 2, "pops_known": 3, "pops_here": 3,
    "active_at": "irs1:1940", "taken_over": 0, "state_problem": "",
}  # fmt: skip
HEARD = ["Hears", "3 of 3 PoPs"]
NEVER = ["Became active", "0 times"]


@pytest.mark.parametrize(
    ("standing", "seat", "facts"),
    [
        (
            "standby",
            {},
            [
                ["This IRS", "stands by for 3:12, as it should: it is ready to take over"],
                ["The active one", "irs1:1940, as PoPs reach it"],
                HEARD,
                NEVER,
            ],
        ),
        (
            "standby",
            {"active_at": "", "pops_here": 1},
            [
                [
                    "This IRS",
                    "stands by for 3:12, and cannot tell who is active: it hears too few PoPs",
                ],
                ["Hears", "1 of 3 PoPs"],
                ["Granted by", "0 of 3 PoPs, 2 must"],
                NEVER,
            ],
        ),
        (
            "standby",
            {"active_at": ""},
            [
                ["This IRS", "stands by for 3:12, and no IRS is active"],
                HEARD,
                ["Granted by", "0 of 3 PoPs, 2 must"],
                NEVER,
            ],
        ),
        (
            "active",
            {"active_at": "", "leads": True, "grants": 3, "taken_over": 1},
            [
                ["This IRS", "active for 3:12"],
                ["Epoch", 7],
                ["Granted by", "3 of 3 PoPs, 2 must"],
                ["Became active", "1 time"],
            ],
        ),
        (
            "alone",
            {"active_at": "", "leads": True, "majority": 0},
            [["This IRS", "the only one"], ["Epoch", 7]],
        ),
    ],
)
def test_of_an_irs_it_is_said_whether_all_is_well(
    standing: str, seat: dict[str, object], facts: list[list[object]]
) -> None:
    irs = {"standing": standing, "epoch": 7, "seat": {**SEAT, **seat}}
    script = f"""
        const {{ seatFacts }} = await import(`${{web}}/irs.js`);
        console.log(JSON.stringify(seatFacts({json.dumps(irs)})));
    """
    assert run(script) == facts


def test_a_pop_that_grants_another_irs_is_no_fault_of_a_standby() -> None:
    pop = {"pop": "lhr/0", "connected": True, "grants": False, "live": 3}
    irs = {"seat": SEAT, "pops": [pop], "live": {"partial": {}}}
    script = f"""
        const {{ pops }} = await import(`${{web}}/irs.js`);
        console.log(JSON.stringify(pops({json.dumps(irs)})));
    """
    word = "grants the active IRS"
    assert run(script) == [{"pop": "lhr/0", "state": "idle", "word": word, "live": 3}]


def test_both_pages_stand_in_one_frame_and_each_says_which_it_is() -> None:
    pages = make_pages()
    here = 'aria-current="page"'
    for path, word, nav in (
        ("/", "status", f'<a href="/" {here}>Status</a><a href="/network" id="to-network" hidden>'),
        (
            "/network",
            "network",
            f'<a href="/">Status</a><a href="/network" id="to-network" {here}>',
        ),
    ):
        body = pages[path].body.decode()
        assert f"<title>edged {word}</title>" in body
        assert f"<h1>{word.capitalize()} of this edged</h1>" in body
        assert f'<main id="{word}" hidden>' in body
        assert nav in body
        assert body.count(here) == body.count('<script type="module"') == 1
        assert body.endswith("</noscript>\n</body>\n</html>\n")


def test_a_page_loads_all_its_scripts_at_once() -> None:
    folder = resources.files("edged.api.web")
    pages = make_pages()
    for path, script in (("/", "status.js"), ("/network", "atlas.js")):
        known, waiting = {script}, [script]
        while waiting:
            for name in IMPORTS.findall((folder / waiting.pop()).read_text()):
                if name not in known:
                    known.add(name)
                    waiting.append(name)
        loaded = [link.rpartition("/")[2] for link in LINKS.findall(pages[path].body.decode())]
        assert sorted(name for name in loaded if name.endswith(".js")) == sorted(known)
