"""The status page in Chromium: a live network, its viewers, and an origin that dies."""

import contextlib
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio
from msgspec import Struct

from edged.policy.network_history import SAMPLE_INTERVAL_S
from edged.roles.status import Status
from tests.conftest import require
from tests.e2e.browser import Browser, Page, open_browser
from tests.e2e.clip import RATE, make_clip
from tests.e2e.network import Edged, open_demo, open_edged, run_edged, take_ports
from tests.e2e.publisher import publish_clip
from tests.e2e.viewer import Viewer

pytestmark = pytest.mark.e2e

TOKEN = "the-token-of-this-network"  # noqa: S105 - it opens nothing
ORIGINS = ("fra1", "fra2")
KEY = "key-of-one-only"
SHOWN_S_MAX = 5.0
GOP_S = 5.0  # More than is good: it is warned of.
ROW = "document.querySelector('[data-channel=one]')"


class Setting(Struct):
    """An IRS, two origins and a PoP with a status page."""

    folder: Path
    pop: Edged
    origins: dict[str, Edged]
    page: str
    rtmp: str
    http: str


@contextlib.asynccontextmanager
async def open_setting() -> AsyncIterator[Setting]:
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name:
        folder = Path(name)
        metrics = [f"{host}.metrics" for host in ("irs", *ORIGINS, "pop")]
        ports = take_ports(["irs", *ORIGINS, "rtmp", "http", "page", *metrics])
        at = {what: f"127.0.0.1:{port}" for what, port in ports.items()}
        client = f'[irs_client]\naddresses = ["{at["irs"]}"]\n'
        token = folder / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        texts = {"irs": f'[irs]\nlisten = "{at["irs"]}"\nwarmup_s = 0.0\n'}
        for origin in ORIGINS:
            texts[origin] = f'[origin]\nname = "{origin}"\nlisten = "{at[origin]}"\n{client}'
        texts["pop"] = (
            f'[pop]\nname = "ams1"\n{client}[ingest.rtmp]\nlisten = "{at["rtmp"]}"\n'
            f'[playback]\nlisten = "{at["http"]}"\n'
            f'[[stream_keys.static]]\nchannel = "one"\nkey = "{KEY}"\ntitle = "The one"\n'
        )
        async with contextlib.AsyncExitStack() as stack:
            hosts: dict[str, Edged] = {}
            for host, text in texts.items():
                path = folder / f"{host}.toml"
                admin = f'[admin]\nsocket = "{folder}/{host}.sock"\n'
                if host == "pop":
                    admin += f'listen = "{at["page"]}"\ntoken_file = "{token}"\n'
                path.write_text(f'{text}{admin}[metrics]\nlisten = "{at[f"{host}.metrics"]}"\n')
                hosts[host] = await stack.enter_async_context(
                    open_edged(folder, host, "run", "-c", str(path), doomed=host in ORIGINS)
                )
            await hosts["pop"].wait_log("backbone session started", count=4 * len(ORIGINS))
            yield Setting(
                folder=folder,
                pop=hosts["pop"],
                origins={origin: hosts[origin] for origin in ORIGINS},
                page=f"http://{at['page']}/",
                rtmp=f"rtmp://{at['rtmp']}/live/{KEY}",
                http=f"http://{at['http']}",
            )


async def text_of(page: Page, selector: str) -> str:
    found = await page.evaluate(f"document.querySelector({selector!r})?.textContent ?? ''")
    assert isinstance(found, str)
    return found


async def open_status(browser: Browser, address: str) -> Page:
    page = await browser.open_page(1440, 900)
    await page.navigate(address)
    await page.wait_for("!document.getElementById('status').hidden", SHOWN_S_MAX)
    return page


def problems(page: Page) -> list[str]:
    """What the console shows beside the 401 that asks for the token."""
    return [line for line in page.console if "401" not in line and "verbose" not in line]


async def test_a_stream_its_viewers_and_the_death_of_its_origin() -> None:
    require("chromium")
    require("ffmpeg")
    clip = make_clip(seconds=40, gop=round(GOP_S * RATE))
    with trio.fail_after(110):
        async with open_setting() as setting, open_browser() as browser:
            page = await open_status(browser, f"{setting.page}#{TOKEN}")
            assert await page.evaluate("location.hash") == "", "the token left the address bar"
            assert "All is well" in await text_of(page, "#headline")
            assert await page.evaluate("!document.getElementById('empty').hidden")
            async with trio.open_nursery() as media:
                media.start_soon(publish_clip, clip, setting.rtmp)
                home = await see_the_stream(setting, page)
                media.start_soon(Viewer(setting.http, "one").watch)
                await see_the_viewer(page)
                await see_what_is_sent(page)
                await see_the_origin_die(setting, page, home)
                media.cancel_scope.cancel()
            assert problems(page) == []
            await setting.pop.interrupt()
            await page.wait_for("document.body.hasAttribute('data-lost')", 2 * SHOWN_S_MAX)
            assert "No answer from edged" in await text_of(page, "#fresh-text")


async def see_the_stream(setting: Setting, page: Page) -> str:
    """It is there within SHOWN_S_MAX with its route and why; returns where it went."""
    await setting.pop.wait_log("publisher started")
    await page.wait_for(ROW, SHOWN_S_MAX)
    home = str((await setting.pop.wait_log("stream placed"))["origin"])
    assert await text_of(page, "[data-channel=one] .route") == f"ams1 → {home}"
    assert "The one" in await text_of(page, "[data-channel=one] .who")
    assert "connected" in await text_of(page, "#irs-sessions tbody tr")
    await page.evaluate(f"{ROW}.querySelector('.row').click()")
    await page.wait_for(drawn("[data-state=ok][data-active]", home, "up"), SHOWN_S_MAX)
    why = await text_of(page, "[data-channel=one] .why")
    assert f"{home} is the nearest origin whose lease has room" in why
    return home


async def see_the_viewer(page: Page) -> None:
    viewers = f"{ROW}.querySelector('.viewers output').textContent === '1'"
    await page.wait_for(viewers, 3 * SHOWN_S_MAX)  # It has to find the stream first.
    total = "document.querySelector('[data-tile=viewers] output').textContent === '1'"
    await page.wait_for(total, SHOWN_S_MAX)
    rate = f"parseFloat({ROW}.querySelector('.fps output').textContent) > 20"
    await page.wait_for(rate, 2 * SHOWN_S_MAX)


async def see_what_is_sent(page: Page) -> None:
    """Codec, resolution, bitrate and GOP of the clip; and the warning that its GOPs earn it."""
    gop = f"parseFloat({ROW}.querySelector('.gop output').textContent)"
    await page.wait_for(f"Math.abs({gop} - {GOP_S}) < 0.1", 2 * GOP_S + SHOWN_S_MAX)
    pictured = await text_of(page, "[data-channel=one] .picture")
    assert re.search(r"320.180", pictured), pictured
    assert "H.264" in pictured, pictured
    bitrate = await text_of(page, "[data-channel=one] .bitrate output")
    unit = await text_of(page, "[data-channel=one] .bitrate small")
    kbps = float(bitrate) * {"kbps": 1, "Mbps": 1000}[unit.strip()]
    assert 200 < kbps < 800, (bitrate, unit)
    warned = f"{ROW}.querySelector('.warnings:not([hidden])')?.textContent.includes('keyframe')"
    await page.wait_for(warned, 10 + SHOWN_S_MAX)
    assert await page.evaluate(f"{ROW}.querySelector('.gop').dataset.state") == "warn"


def drawn(kind: str, origin: str, word: str) -> str:
    """Whether one line of that kind is drawn, the one from the PoP to that origin."""
    return (
        f"[...document.querySelectorAll('.link{kind}')].map((link) => [link.querySelector('title')"
        ".textContent.split(',')[0], link.querySelector('.wire').getTotalLength() > 50])"
        f".join() === 'ams1 to {origin}: {word},true'"
    )


async def see_the_origin_die(setting: Setting, page: Page, home: str) -> None:
    """The page and the commands say which it was, and where its stream is now."""
    (other,) = set(ORIGINS) - {home}
    setting.origins[home].process.kill()
    headline = f"document.getElementById('headline').textContent.startsWith('Origin {home} is')"
    await page.wait_for(headline, SHOWN_S_MAX)
    await page.wait_for(
        "[...document.querySelectorAll('.node[data-state=bad] .name')]"
        f".some((node) => node.textContent === '{home}')",
        SHOWN_S_MAX,
    )
    route = f"{ROW}.querySelector('.route').textContent === 'ams1 → {other}'"
    await page.wait_for(route, SHOWN_S_MAX)
    await page.wait_for(drawn("[data-state=bad]:not([data-active])", home, "down"), SHOWN_S_MAX)
    await page.wait_for(drawn("[data-state=ok][data-active]", other, "up"), SHOWN_S_MAX)
    socket = ("--socket", str(setting.folder / "pop.sock"))
    out, _ = await run_edged(setting.folder, "top", "--once", *socket)
    assert re.search(rf"✕ +ams1 → {home} +down", out)
    assert re.search(rf"▲ +one +ams1 → {other} ", out)
    door = {
        "EDGED_ADMIN_URL": setting.page,
        "EDGED_ADMIN_TOKEN_FILE": str(setting.folder / "token"),
    }
    out, _ = await run_edged(setting.folder, "routes", environ=door)
    assert re.search(rf"{home} +down +link down", out)
    assert re.search(rf"one +{other} ", out)
    out, _ = await run_edged(setting.folder, "kick", "one", "--reason", "enough", environ=door)
    assert "one was ended at pop ams1" in out


async def test_the_token_is_asked_for_and_nothing_is_wider_than_a_phone() -> None:
    require("chromium")
    with trio.fail_after(90):
        async with open_demo() as demo, open_browser() as browser:
            address, _, token = demo.addresses.status.partition("#")
            page = await browser.open_page()
            await page.navigate(address)
            await page.wait_for("!document.getElementById('login').hidden", SHOWN_S_MAX)
            await type_token(page, "wrong")
            await page.wait_for(
                "document.getElementById('login-wrong').textContent === 'the token is wrong'",
                SHOWN_S_MAX,
            )
            await type_token(page, token)
            await page.wait_for("!document.getElementById('status').hidden", SHOWN_S_MAX)
            assert await page.evaluate("document.cookie") == "", "scripts cannot read it"
            await page.wait_for("document.querySelectorAll('.node').length >= 4", SHOWN_S_MAX)
            assert "the only one" in await text_of(page, "#irs-facts")
            assert "obeys the only IRS" in await text_of(page, "#irs-pops tbody tr")
            await check_widths(page)
            await see_the_network(page)
            await page.evaluate("document.getElementById('logout').click()")
            await page.wait_for("!document.getElementById('login').hidden", SHOWN_S_MAX)
            await page.navigate(address)
            await page.wait_for("!document.getElementById('login').hidden", SHOWN_S_MAX)
            assert problems(page) == []
            for path in ("/", "/watch/demo", "/api/v1/"):
                public = await browser.open_page()
                await public.navigate(f"{demo.addresses.playback['west']}{path}")
                await check_widths(public)

            out, _ = await run_edged(demo.folder, "top", "--json")
            seen = msgspec.json.decode(out, type=Status)
            assert {pop.pop for pop in seen.pops} == {"west", "east"}
            assert hashlib.sha256(token.encode()).hexdigest() not in out


async def see_the_network(page: Page) -> None:
    """The page of IRS draws it, on a map, and goes on with each sample."""
    await page.evaluate("document.getElementById('to-network').click()")
    drawn = "document.querySelectorAll('.spot').length === 3"
    await page.wait_for(f"location.pathname === '/network' && {drawn}", SHOWN_S_MAX)
    more = "Number(document.getElementById('slider').max) >= 2"
    await page.wait_for(more, 2 * SAMPLE_INTERVAL_S + SHOWN_S_MAX)
    await page.wait_for("document.querySelectorAll('.tie[data-link=up]').length === 2", SHOWN_S_MAX)
    assert await text_of(page, "#headline") == "All is well"
    assert await text_of(page, "#fresh-text") == "Live"
    assert await page.evaluate("!document.querySelector('.land').hasAttribute('display')")


async def check_widths(page: Page) -> None:
    """Nothing of it is wider than a phone, a tablet or a desk."""
    for width in (320, 390, 768, 1440):
        await page.set_viewport(width, 844, mobile=width < 500)
        await trio.sleep(0.3)
        wide = await page.evaluate("document.documentElement.scrollWidth")  # A phone zooms out.
        assert isinstance(wide, int)
        assert wide <= width, await page.evaluate("location.pathname")


async def type_token(page: Page, token: str) -> None:
    await page.evaluate(
        f"document.getElementById('token').value = '{token}';"
        "document.getElementById('login-form').requestSubmit()"
    )
