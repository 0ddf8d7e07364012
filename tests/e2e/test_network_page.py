"""The network page in Chromium: an hour gone through, and nothing yet (live: test_status_page)."""

import contextlib
import hashlib
import time
from collections.abc import AsyncIterator

import pytest
import trio
from msgspec import Struct

from edged.api.admin import AdminConfig
from edged.policy.network_history import SAMPLE_INTERVAL_S, NetworkHistory
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
from edged.roles.admin_http import History, no_history, serve_admin_http
from tests.conftest import require
from tests.e2e.browser import Browser, Page, open_browser
from tests.e2e.test_status_page import TOKEN, check_widths, problems, text_of, type_token

pytestmark = pytest.mark.e2e

SHOWN_S_MAX = 6.0
CITIES = {"ams": (52.4, 4.9), "lhr": (51.5, -0.1), "nyc": (40.7, -74.0), "nrt": (35.7, 139.7)}
MAP = NetworkMap(
    sites=tuple(SitePlace(name, *place) for name, place in CITIES.items()),
    links=(
        LinkPlace("ams-lhr", ("ams", "lhr"), 1000.0),
        LinkPlace("lhr-nyc", ("lhr", "nyc"), 500.0),
        LinkPlace("nrt-nyc", ("nrt", "nyc"), 200.0),
    ),
    site_of_pop={name: name for name in CITIES},
    site_of_origin={"lhr1": "lhr", "nyc1": "nyc"},
)
CUT_AT, DOWN_AT, COUNT = 20, 40, 70  # Samples.
CUT, DOWN = LINK_STATES.index("cut"), ORIGIN_STATES.index("down")


def make_sample(number: int, at: float) -> NetworkSample:
    """Streams grow; a link is cut from CUT_AT on, an origin is down from DOWN_AT on."""
    cut, down = number >= CUT_AT, number >= DOWN_AT
    home = "nyc1" if down else "lhr1"
    used = 40 + number
    origins = {
        "lhr1": (DOWN, 0, 200, 0, 0, 0, 0, 100) if down else (0, 1, 200, used, 5, 9, used, 100),
        "nyc1": (0, 1, 100, 60, 1, 2, 57, 100),
    }
    return NetworkSample(
        at=at,
        irs=IrsPoint(standing="active", epoch=7, version=number),
        pops=dict.fromkeys(CITIES, (1, 0, 10 + number, 1, 0, 0, 30)),
        origins=origins,
        links={
            "ams-lhr": (0, 60, 20, 74, 0, 0),
            "lhr-nyc": (CUT, 0, 0, -1, -1, 0) if cut else (0, 88, 10, 700, 2, 12),
            "nrt-nyc": (0, 30, 30, 1600, 0, 0),
        },
        flows={(name, home): 10 + number for name in CITIES},
        reach={"lhr": (12, 0, 40), "ams": (0, 7, 0), "nrt": (2, 3, 5)} if number > CUT_AT else {},
        relays={("lhr", "ams"): 7, ("lhr", "nrt"): 2, ("nrt", "lhr"): 1} if number > CUT_AT else {},
        link_why={"lhr-nyc": "silent on every path"} if cut else {},
    )


def make_events(number: int, at: float) -> list[NetworkEvent]:
    if number == CUT_AT:
        why = "silent on every path"
        return [NetworkEvent(at=at, kind="link", link="lhr-nyc", before="up", after="cut", why=why)]
    if number != DOWN_AT:
        return []
    down = NetworkEvent(
        at=at, kind="origin", origin="lhr1", before="suspect", after="down", why="3 beats missed"
    )
    moves = [
        NetworkEvent(
            at=at,
            kind="moved",
            pop=name,
            origin="lhr1",
            to="nyc1",
            before="session closed",
            count=50,
        )
        for name in CITIES
    ]
    return [down, *moves]


class Hour(Struct):
    """A history that goes on."""

    history: NetworkHistory
    count: int = 0

    def add(self) -> None:
        at = time.time() - SAMPLE_INTERVAL_S * max(0, COUNT - self.count)
        sample = make_sample(self.count, at)
        self.history.add(sample, MAP, make_events(self.count, at))
        self.count += 1


@contextlib.asynccontextmanager
async def serving(history: History) -> AsyncIterator[str]:
    """The page's address."""
    config = AdminConfig(
        listen="127.0.0.1:0", token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest()
    )
    async with trio.open_nursery() as nursery:
        address: str = await nursery.start(
            serve_admin_http, config, lambda _query: b"{}", lambda line: line, history
        )
        yield f"http://{address}/network"
        nursery.cancel_scope.cancel()


async def press(page: Page, *keys: str) -> None:
    for key in keys:
        for kind in ("keyDown", "keyUp"):
            await page.command("Input.dispatchKeyEvent", type=kind, key=key, text="")


async def click(page: Page, selector: str) -> None:
    await page.evaluate(
        f"document.querySelector({selector!r})"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )


async def test_an_hour_is_drawn_and_gone_through() -> None:
    require("chromium")
    hour = Hour(NetworkHistory("0a1b"))
    for _ in range(COUNT):
        hour.add()
    with trio.fail_after(60):
        async with serving(hour.history.after) as address, open_browser() as browser:
            page = await browser.open_page(1440, 900)
            await page.navigate(address)
            await page.wait_for("!document.getElementById('login').hidden", SHOWN_S_MAX)
            await type_token(page, TOKEN)
            await page.wait_for("document.querySelectorAll('.spot').length === 6", SHOWN_S_MAX)
            await see_now(page)
            await see_what_was(page)
            await see_more(page, hour)
            await see_one(page)
            await see_relays(page)
            await check_widths(page)
            assert problems(page) == []


async def see_now(page: Page) -> None:
    assert await text_of(page, "#headline") == "Origin lhr1 is down"
    assert "Link lhr-nyc is cut" in await text_of(page, "#also")
    assert await page.evaluate("document.getElementById('live').ariaPressed") == "true"
    log = await text_of(page, "#lines")
    assert "200 streams left lhr1" in log
    assert "it failed: session closed" in log
    assert "lhr1 → nyc1" in log
    assert "Link lhr-nyc is cut" in log
    assert await page.evaluate(
        "document.querySelector('[data-key=\"link lhr-nyc\"]').dataset.link === 'cut'"
    )
    assert await page.evaluate("document.querySelectorAll('.flow').length") == 3
    apart = "document.querySelector('[data-key=\"link nrt-nyc\"] .line').getAttribute('d')"
    path = await page.evaluate(apart)
    assert isinstance(path, str)
    assert path.count("M") == 2, "across the Pacific, it leaves one edge and comes in by the other"


async def see_what_was(page: Page) -> None:
    """By the slider, by its keys, from one event to the one before, and played."""
    await press(page, ",")
    assert await page.evaluate("document.getElementById('slider').value") == str(DOWN_AT)
    await press(page, ",")
    assert await page.evaluate("document.getElementById('slider').value") == str(CUT_AT)
    assert await text_of(page, "#headline") == "Link lhr-nyc is cut"
    await press(page, "ArrowLeft")
    assert await text_of(page, "#headline") == "Link lhr-nyc is filling"
    assert "▲ 88 %" in await text_of(page, ".marks")
    assert await text_of(page, "#lines") == ""
    assert "Nothing" in await text_of(page, "#lines-empty")
    said = await page.evaluate("document.getElementById('slider').ariaValueText")
    assert "4\u00a0min ago" in str(said)
    await press(page, " ")
    here = f"Number(document.getElementById('slider').value) > {CUT_AT + 3}"
    await page.wait_for(here, SHOWN_S_MAX)
    await press(page, "l")
    assert await page.evaluate("document.getElementById('slider').value") == str(COUNT - 1)
    assert await page.evaluate("document.getElementById('play').ariaPressed") == "false"


async def see_more(page: Page, hour: Hour) -> None:
    """What comes is shown, and only that is asked for."""
    before = await text_of(page, "#clock")
    hour.add()
    await page.wait_for(f"document.getElementById('slider').max === '{COUNT}'", SHOWN_S_MAX)
    assert await text_of(page, "#clock") != before
    asked = await page.evaluate(
        "performance.getEntriesByType('resource').map((each) => each.name)"
        ".filter((name) => name.includes('network.jsonl')).map((name) => new URL(name).search)"
    )
    assert isinstance(asked, list)
    assert asked.count("") <= 2, "before the token, and once with it"
    assert f"?after=0a1b-{COUNT}" in asked


async def see_one(page: Page) -> None:
    """By hand, by the keyboard, by name; what has nothing to do with it stands back."""
    await click(page, "[data-key='origin nyc1'] .disc")
    await page.wait_for("!document.getElementById('detail').hidden", SHOWN_S_MAX)
    assert await text_of(page, "#detail-head") == "Origin nyc1"
    assert "60 of 100" in await text_of(page, "#detail-facts")
    assert await text_of(page, "#detail-flows-head") == "Comes from 4 PoPs"
    await page.evaluate("document.querySelector('.world').focus()")
    await press(page, "ArrowRight")
    assert await text_of(page, "#detail-head") != "Origin nyc1"
    await press(page, "Escape")
    assert await page.evaluate("document.getElementById('detail').hidden")
    await page.evaluate(
        "const find = document.getElementById('find'); find.value = 'lhr-nyc';"
        "find.dispatchEvent(new Event('input'))"
    )
    assert await text_of(page, "#detail-head") == "Link lhr-nyc"
    assert "cut" in await text_of(page, "#detail-state")
    assert await page.evaluate(
        "document.querySelector('[data-key=\"pop nrt\"]').hasAttribute('data-back')"
    )
    await click(page, "#deselect")
    await click(page, "#zoom-in")
    await page.wait_for("document.querySelector('.world').hasAttribute('data-zoomed')", 2)
    await click(page, "#zoom-fit")
    await click(page, "#show-links")
    assert await page.evaluate("document.querySelectorAll('.tie').length") == 0
    await click(page, "#show-links")


async def see_relays(page: Page) -> None:
    """Channels that go from PoP to PoP, and what each holds; nothing where there is none."""
    count = "document.querySelectorAll('.relay').length"
    assert await page.evaluate(count) == 2, "there and back; ams and lhr touch"
    await click(page, "#show-relays")
    assert await page.evaluate(count) == 0
    await click(page, "#show-relays")
    await page.evaluate(
        "const found = document.getElementById('find'); found.value = 'lhr';"
        "found.dispatchEvent(new Event('input'))"
    )
    assert await text_of(page, "#detail-head") == "PoP lhr"
    told = await text_of(page, "#detail-facts")
    for words in ("Holds", "12", "40.0", "To PoPs", "9"):
        assert words in told
    assert await text_of(page, "#detail-relays-head") == "Relays, by channels"
    bars = await text_of(page, "#detail-relays")
    for words in ("→ ams", "→ nrt", "← nrt"):
        assert words in bars
    back = "document.querySelector('[data-key=\"pop nyc\"]').hasAttribute('data-back')"
    assert await page.evaluate(back)
    assert not await page.evaluate(back.replace("pop nyc", "pop nrt"))
    await click(page, "#deselect")
    await press(page, ",", ",")
    assert await page.evaluate(count) == 0
    assert await page.evaluate("document.getElementById('show-relays').hidden")
    await press(page, "l")


async def open_nothing(browser: Browser, history: History) -> tuple[str, str]:
    """What stands where the network would."""
    async with serving(history) as address:
        page = await browser.open_page()
        await page.navigate(f"{address}#{TOKEN}")
        await page.wait_for("!document.getElementById('nothing').hidden", SHOWN_S_MAX)
        assert await page.evaluate("document.getElementById('board').hidden")
        return await text_of(page, "#nothing-head"), await text_of(page, "#nothing-why")


async def test_where_there_is_nothing_yet_it_is_said() -> None:
    require("chromium")
    empty = NetworkHistory("0a1b")
    alone = NetworkHistory("0a1c")
    irs = IrsPoint(standing="alone", epoch=1, version=1)
    nobody = NetworkSample(at=time.time(), irs=irs, pops={}, origins={}, links={}, flows={})
    alone.add(nobody, NetworkMap(), [])
    with trio.fail_after(40):
        async with open_browser() as browser:
            assert (await open_nothing(browser, empty.after))[0] == "No history yet"
            assert (await open_nothing(browser, alone.after))[0] == "Nobody is here yet"
            head, why = await open_nothing(browser, no_history)
    assert head == "There is no network to draw here"
    assert why.startswith("This edged is no IRS")
