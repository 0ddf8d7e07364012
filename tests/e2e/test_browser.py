"""The browser harness itself, with static pages."""

from pathlib import Path

import pytest
import trio

from tests.conftest import require
from tests.e2e.browser import BrowserError, open_browser

pytestmark = pytest.mark.e2e

PAGE = """<!doctype html><title>static</title><style>body { background: white }
@media (prefers-color-scheme: dark) { body { background: black } }</style>
<script>console.log("hello", 7); setTimeout(() => { throw new Error("late") }, 0)</script>"""


async def test_a_static_page_is_driven(tmp_path: Path) -> None:
    require("chromium")
    (tmp_path / "page.html").write_text(PAGE)
    with trio.fail_after(60):
        async with open_browser() as browser:
            page = await browser.open_page(640, 480)
            await page.navigate((tmp_path / "page.html").as_uri())
            assert await page.evaluate("document.title") == "static"
            assert await page.evaluate("Promise.resolve({a: [1, 'b']})") == {"a": [1, "b"]}
            assert await page.evaluate("[innerWidth, innerHeight]") == [640, 480]
            await page.set_viewport(390, 844, mobile=True)
            assert await page.evaluate("screen.width") == 390
            colour = "getComputedStyle(document.body).backgroundColor"
            for scheme, expected in (("dark", "rgb(0, 0, 0)"), ("light", "rgb(255, 255, 255)")):
                await page.set_colour_scheme(scheme)
                assert await page.evaluate(colour) == expected
            await page.take_screenshot(tmp_path / "seen.png")
            assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
            assert "log: hello 7" in page.console
            assert any("late" in line for line in page.console)
            with pytest.raises(BrowserError, match="nonsense"):
                await page.evaluate("nonsense.at.all")
            with pytest.raises(BrowserError, match="not within"):
                await page.wait_for("false", 0.2)
            with pytest.raises(BrowserError, match="ERR_"):
                await page.navigate("http://127.0.0.1:1/")
            other = await browser.open_page()
            assert await other.evaluate("1 + 1") == 2
            await other.close()
