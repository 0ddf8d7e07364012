"""The API of real processes: the README's examples, and a title that outlives an origin."""

import re
import signal
from collections.abc import Mapping

import msgspec
import pytest
import trio

from tests.api.client import connected
from tests.conftest import require
from tests.e2e.clip import make_clip
from tests.e2e.network import open_demo
from tests.e2e.pair import open_pair
from tests.e2e.publisher import publish_clip
from tests.test_docs import section

pytestmark = pytest.mark.e2e

SEEN_S_MAX = 0.5
STREAM = "/api/v1/streams/one"
LISTED = "/streams/one.json"


async def run(command: str, variables: Mapping[str, str]) -> bytes:
    """A line of the README, as a shell runs it."""
    environ = {"PATH": "/usr/bin:/bin", **variables}
    done = await trio.run_process(
        ["/bin/sh", "-c", f"{command} --fail-with-body --silent --show-error --max-time 20"],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environ,
    )
    assert done.returncode == 0, f"{command}: {done.stdout!r} {done.stderr!r}"
    return done.stdout


def json_of(text: bytes) -> dict[str, object]:
    return msgspec.json.decode(text, type=dict[str, object])


async def test_the_readme_s_examples_are_as_it_says() -> None:
    require("curl")
    (block,) = re.findall(r"```sh\n(.*?)```", section("API"), re.DOTALL)
    ingest, listing, one, playlist, patch, health = block.strip().splitlines()
    async with open_demo("--publisher") as demo:
        at = {
            pop: {
                "POP": demo.addresses.playback[pop],
                "KEY": demo.keys["demo"],
                "CHANNEL": "demo",
            }
            for pop in ("west", "east")
        }
        with trio.fail_after(20):
            while json_of(await run(listing, at["east"]))["total"] != 1:  # noqa: ASYNC110 - asked for
                await trio.sleep(0.2)
        told = json_of(await run(ingest, at["east"]))
        assert (told["pop"], told["url"]) == ("east", demo.addresses.rtmp["east"])
        for pop in ("west", "east"):
            text = (await run(playlist, at[pop])).decode()
            assert text.startswith("#EXTM3U")
            assert json_of(await run(one, at[pop]))["channel"] == "demo"
            assert json_of(await run(health, at[pop])) == {"status": "ok", "reasons": []}
        changed = json_of(await run(patch, at["east"]))
        assert (changed["title"], changed["category"], changed["tags"]) == (
            "Now",
            "Music",
            ["live"],
        )
        with trio.fail_after(5):
            while json_of(await run(one, at["west"]))["title"] != "Now":  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert demo.keys["demo"] not in demo.log_text()


async def test_a_title_outlives_the_origin_that_was_told_it() -> None:
    clip = make_clip(seconds=14)
    with trio.fail_after(60):
        async with open_pair() as pair, trio.open_nursery() as nursery:
            nursery.start_soon(publish_clip, clip, pair.publish_url())
            home = await pair.home()
            async with connected(pair.http.removeprefix("http://")) as client:
                while (await client.ask(STREAM)).status != 200:  # noqa: ASYNC110
                    await trio.sleep(0.05)
                key = pair.publish_url().rpartition("/")[2]
                fields = {"Authorization": f"Bearer {key}"}
                answer = await client.ask(STREAM, "PATCH", {"title": "now"}, fields)
                assert answer.status == 200
                await trio.sleep(SEEN_S_MAX)
                # As the directory has it, which origins fill: the API knows better at this PoP.
                assert (await client.ask(LISTED)).json["title"] == "now"
                await trio.sleep(2.5)  # Something is packaged, and how to go on from it is known.
                pair.origins[home].process.send_signal(signal.SIGKILL)
                assert await pair.home(2) != home
                (successor,) = (origin for origin in pair.origins if origin != home)
                await pair.origins[successor].wait_log("stream opened")
                await trio.sleep(SEEN_S_MAX)
                assert (await client.ask(LISTED)).json["title"] == "now"
                assert (await client.ask(STREAM)).json["title"] == "now"
            nursery.cancel_scope.cancel()
