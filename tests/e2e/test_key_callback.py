"""Real encoders, a PoP of its own process, and a service that knows keys which the PoP does not."""

import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from edged.policy.outbound import sign
from tests.api.service import Received, Service, hanging, make_tls, replying, serving
from tests.conftest import require
from tests.e2e.clip import make_clip
from tests.e2e.network import Edged, open_edged, take_ports, wait_until

pytestmark = pytest.mark.e2e

STATIC_KEY, ASKED_KEY, WRONG_KEY = "static-key-of-alice", "asked-key-of-bob", "wrong-key-of-eve"
SECRET = "0123456789abcdef" * 2


class Pop(Struct):
    edged: Edged
    service: Service
    url: str

    @contextlib.asynccontextmanager
    async def publishing(self, key: str) -> AsyncIterator[trio.Process]:
        """ffmpeg, publishing a clip with this key until it is over, or until we have enough."""
        arguments = ("-v", "error", "-nostdin", "-re", "-i", str(make_clip()), "-c", "copy")
        process = await trio.lowlevel.open_process(
            ["ffmpeg", *arguments, "-f", "flv", f"{self.url}/{key}"], stderr=None
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with trio.CancelScope(shield=True), trio.move_on_after(5):
                await process.wait()


@contextlib.asynccontextmanager
async def open_pop() -> AsyncIterator[Pop]:
    """All roles in one process, which asks a service over TLS."""
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name:
        folder = Path(name)
        ports = take_ports(["irs", "backbone", "rtmp", "http", "metrics"])
        at = {what: f"127.0.0.1:{port}" for what, port in ports.items()}
        async with serving(make_tls(folder, "127.0.0.1")) as service:
            (folder / "pop.toml").write_text(
                f'[irs]\nlisten = "{at["irs"]}"\nwarmup_s = 0.0\n'
                f'[origin]\nname = "o"\nlisten = "{at["backbone"]}"\n[pop]\nname = "ams1"\n'
                f'[irs_client]\naddresses = ["{at["irs"]}"]\n'
                f'[ingest.rtmp]\nlisten = "{at["rtmp"]}"\n[playback]\nlisten = "{at["http"]}"\n'
                f'[metrics]\nlisten = "{at["metrics"]}"\n[admin]\nsocket = "{folder}/sock"\n'
                f'[[stream_keys.static]]\nchannel = "alice"\nkey = "{STATIC_KEY}"\n'
                f'[stream_keys.callback]\nurl = "{service.url}"\nsecret = "{SECRET}"\n'
                f'ca = "{folder}/ca.pem"\n'
            )
            async with open_edged(folder, "pop", "run", "-c", str(folder / "pop.toml")) as edged:
                await edged.wait_log("backbone session started", count=4)
                yield Pop(edged, service, f"rtmp://{at['rtmp']}/live")
            for key in (STATIC_KEY, ASKED_KEY, WRONG_KEY, SECRET):
                assert key not in edged.log_text()


async def know_one_key(stream: trio.abc.Stream, received: Received) -> None:
    """Bob's, if the question is signed."""
    timestamp = int(received.fields["edged-timestamp"])
    fields = {name.lower(): value for name, value in sign(SECRET, timestamp, received.body).items()}
    is_genuine = fields.items() <= received.fields.items()
    if is_genuine and received.json()["stream_key"] == ASKED_KEY:
        await replying(200, {"channel": "bob", "class": "partner"})(stream, received)
    else:
        await replying(403, {"reason": "ask the desk for a key"})(stream, received)


async def test_ffmpeg_publishes_with_a_key_that_only_the_service_knows() -> None:
    require("ffmpeg")
    with trio.fail_after(60):
        async with open_pop() as pop:
            pop.service.behaviour = know_one_key
            async with pop.publishing(ASKED_KEY):
                line = await pop.edged.wait_log("publisher started")
                assert (line["channel"], line["priority"]) == ("bob", "partner")
            async with pop.publishing(WRONG_KEY) as process:
                assert await process.wait() != 0
            (line,) = pop.edged.log("publisher refused")
            assert (line["code"], line["reason"]) == ("unknown_key", "ask the desk for a key")
            questions = [received.json() for received in pop.service.received]
            assert [question["stream_key"] for question in questions] == [ASKED_KEY, WRONG_KEY]
            assert questions[0]["pop"] == "ams1"
            assert str(questions[0]["peer"]).startswith("127.0.0.1:")
            assert json.dumps(questions[0]["encoder"])


async def test_a_service_that_hangs_holds_nobody_else_up() -> None:
    require("ffmpeg")
    with trio.fail_after(60):
        async with open_pop() as pop:
            pop.service.behaviour = hanging
            async with pop.publishing(ASKED_KEY) as process:
                await wait_until(lambda: bool(pop.service.received))
                async with pop.publishing(STATIC_KEY):
                    line = await pop.edged.wait_log("publisher started")
                    assert line["channel"] == "alice"
                    assert pop.edged.log("publisher refused") == []  # The other waits still.
                    assert await process.wait() != 0
            (line,) = pop.edged.log("publisher refused")
            assert line["code"] == "auth_unavailable"
            assert line["detail"] == "key callback: no whole answer within 3 s"
            # What it says when it works again counts at once: no answer is kept.
            pop.service.behaviour = know_one_key
            async with pop.publishing(ASKED_KEY):
                await pop.edged.wait_log("publisher started", count=2)
