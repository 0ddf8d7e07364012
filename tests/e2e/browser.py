"""Headless Chromium, driven over the DevTools protocol: navigate, evaluate, look."""

import base64
import contextlib
import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from edged.errors import EdgedError, ToolMissingError

START_TIMEOUT_S = 30.0  # A cold start on a busy machine.
COMMAND_TIMEOUT_S = 20.0
END_TIMEOUT_S = 5.0
MESSAGE_BYTES_MAX = 64 * 2**20  # A screenshot of a large page in base64.
CONSOLE_LINES_MAX = 1_000
POLL_S = 0.05
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--ignore-certificate-errors",  # Those of a test are signed by nobody it knows.
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--remote-debugging-port=0",
)

Json = dict[str, object]


class BrowserError(EdgedError):
    """The browser, or the script in it, failed."""


class Page:
    """One tab."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self.console: list[
            str
        ] = []  # Messages, exceptions and failed loads, at most CONSOLE_LINES_MAX.
        self._browser = browser
        self._session = session

    async def command(self, method: str, **params: object) -> Json:
        """Send one DevTools command and return its result. Raises BrowserError."""
        return await self._browser.command(method, self._session, **params)

    async def navigate(self, url: str) -> None:
        """Load a page and wait until its document is complete."""
        result = await self.command("Page.navigate", url=url)
        if "errorText" in result:
            raise BrowserError(f"{url}: {result['errorText']}")
        await self.wait_for("document.readyState === 'complete'")

    async def evaluate(self, script: str) -> object:
        """Return the JSON value of an expression; a promise is awaited. Raises BrowserError."""
        result = await self.command(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise BrowserError(f"script failed: {json.dumps(result['exceptionDetails'])[:2000]}")
        value = result["result"]
        assert isinstance(value, dict), "the protocol gives a RemoteObject"
        return value.get("value")

    async def wait_for(self, script: str, timeout_s: float = COMMAND_TIMEOUT_S) -> object:
        """Evaluate until the value is true; return it. Raises BrowserError, with what was seen."""
        value: object = None
        with trio.move_on_after(timeout_s):
            while True:
                value = await self.evaluate(script)
                if value:
                    return value
                await trio.sleep(POLL_S)  # The page has no way to call us.
        console = "\n".join(self.console[-20:])
        raise BrowserError(f"not within {timeout_s:g} s: {script}; last {value!r}\n{console}")

    async def set_viewport(
        self, width: int, height: int, *, scale: float = 1.0, mobile: bool = False
    ) -> None:
        """Emulate a screen of this size, in CSS pixels."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=mobile,
        )  # fmt: skip

    async def set_colour_scheme(self, scheme: str) -> None:
        """Emulate `prefers-color-scheme`: "dark" or "light"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.command("Emulation.setEmulatedMedia", features=features)

    async def take_screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        result = await self.command(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole
        )
        data = result["data"]
        assert isinstance(data, str), "the protocol gives base64"
        await trio.Path(path).write_bytes(base64.b64decode(data))

    async def close(self) -> None:
        """Close the tab; the one opened before it is in front again."""
        await self.command("Page.close")

    def note(self, method: str, params: Json) -> None:
        """Keep what the console would show."""
        if method == "Runtime.consoleAPICalled":
            arguments = params["args"]
            assert isinstance(arguments, list), "the protocol gives a list"
            text = " ".join(str(item.get("value", item.get("description"))) for item in arguments)
            self._add(f"{params['type']}: {text}")
        elif method == "Runtime.exceptionThrown":
            self._add(f"exception: {json.dumps(params['exceptionDetails'])[:2000]}")
        elif method == "Log.entryAdded":
            entry = params["entry"]
            assert isinstance(entry, dict), "the protocol gives a LogEntry"
            self._add(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")

    def _add(self, line: str) -> None:
        self.console.append(line)
        del self.console[:-CONSOLE_LINES_MAX]


class Browser:
    """One browser process and its DevTools connection; made by `open_browser`."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket
        self._last_id = 0
        self._answers: dict[int, trio.MemorySendChannel[Json]] = {}
        self._pages: dict[str, Page] = {}
        self._lost = False

    async def command(self, method: str, session: str | None = None, **params: object) -> Json:
        """Send one command and return its result. Raises BrowserError."""
        self._last_id += 1
        message: Json = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        send, receive = trio.open_memory_channel[Json](1)
        self._answers[self._last_id] = send
        try:
            with trio.fail_after(COMMAND_TIMEOUT_S):
                await self._websocket.send_message(json.dumps(message))
                answer = await receive.receive()
        except trio.TooSlowError:
            raise BrowserError(f"{method}: no answer within {COMMAND_TIMEOUT_S:g} s") from None
        except (ConnectionClosed, trio.EndOfChannel) as error:
            raise BrowserError(f"{method}: the browser is gone") from error
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']}")
        result = answer["result"]
        assert isinstance(result, dict), "the protocol gives an object"
        return result

    async def open_page(self, width: int = 1280, height: int = 800) -> Page:
        """Open a tab with a viewport of this size."""
        target = await self.command("Target.createTarget", url="about:blank")
        attached = await self.command(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        session = attached["sessionId"]
        assert isinstance(session, str), "the protocol gives a string"
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log"):
            await page.command(f"{domain}.enable")
        await page.set_viewport(width, height)
        return page

    async def run(self) -> None:
        """Sort what the browser says to whom it concerns, until it is gone."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = json.loads(await self._websocket.get_message())
                answer = self._answers.pop(message.get("id", 0), None)
                if answer is not None:
                    answer.send_nowait(message)
                elif message.get("sessionId") in self._pages:
                    self._pages[message["sessionId"]].note(message["method"], message["params"])
        for waiting in self._answers.values():
            waiting.close()


def find_chromium() -> str:
    """Return the browser's path. Raises ToolMissingError."""
    for name in PROGRAMS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise ToolMissingError(f"none of {', '.join(PROGRAMS)} is installed")


@contextlib.asynccontextmanager
async def open_browser(*flags: str) -> AsyncIterator[Browser]:
    """Run a browser with a new, empty profile; it is ended, by its pid, with the context."""
    program = find_chromium()
    with tempfile.TemporaryDirectory(
        prefix="edged-chromium-", ignore_cleanup_errors=True
    ) as profile:
        log = Path(profile) / "log"
        with log.open("wb") as output:
            process = await trio.lowlevel.open_process(
                [program, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Nor does it write into anyone's own folder, or leave anything in the common one.
                env={**os.environ, "HOME": profile, "TMPDIR": profile},
            )
        try:
            url = await _wait_for_port(process, Path(profile))
            async with open_websocket_url(url, max_message_size=MESSAGE_BYTES_MAX) as websocket:
                browser = Browser(websocket)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(browser.run)
                    yield browser
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):  # Bounded: two times END_TIMEOUT_S.
                await _end(process)


async def _wait_for_port(process: trio.Process, profile: Path) -> str:
    """Wait for the file in which the browser names its port; return the DevTools address."""
    file = trio.Path(profile / "DevToolsActivePort")
    deadline = trio.current_time() + START_TIMEOUT_S
    while trio.current_time() < deadline:
        if process.poll() is not None:
            log = (profile / "log").read_text(errors="replace")[-2000:]
            raise BrowserError(f"the browser ended with status {process.returncode}: {log}")
        if await file.exists():
            lines = (await file.read_text()).split()
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        await trio.sleep(POLL_S)
    raise BrowserError(f"the browser opened no DevTools port within {START_TIMEOUT_S:g} s")


async def _end(process: trio.Process) -> None:
    """Ask the browser to end, then make it."""
    for stop in (process.terminate, process.kill):
        if process.poll() is None:
            stop()
            with trio.move_on_after(END_TIMEOUT_S if stop == process.terminate else math.inf):
                await process.wait()


def player_state(hls: str) -> str:
    """What hls.js, at `hls` in the page, is about: to be evaluated when it does not go on."""
    return f"""(() => {{
  const {{ currentTime, readyState, paused, error, buffered }} = document.querySelector("video");
  const hls = {hls};
  const main = hls?.streamController, audio = hls?.audioStreamController;
  const details = hls?.levels[0]?.details;
  return JSON.stringify({{
    currentTime, readyState, paused, error: error?.message, now: performance.now(),
    buffered: [...Array(buffered.length).keys()].map((i) => [buffered.start(i), buffered.end(i)]),
    edge: details?.edge, target: hls?.liveSyncPosition, seen: window.seen,
    states: [main?.state, main?.fragPrevious?.sn, audio?.state, audio?.fragPrevious?.sn],
    parts: details?.partList?.filter((p) => !p.loaded).map((p) => [p.fragment.sn, p.index]),
    fragments: details?.fragments.map((f) =>
      [f.sn, f.cc, f.start, f.duration, main?.fragmentTracker?.getState(f)]),
  }});
}})()"""
