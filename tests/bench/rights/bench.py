"""What a protected channel costs: the time that a part's request takes in the server's loop.

    python -m tests.bench.rights

The same request of a browser's, answered from memory, as it is without rights, beside them, and
with a token in each place. The parser and the socket are not in it.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edged.media.stream import StreamId
from edged.playback.hls import HlsService
from edged.playback.rights import RightsGate
from edged.playback.token_keys import TokenKey, TokenKeys, import_key, sign_token
from edged.playback.waiting import Exchange
from edged.policy.playback_rights import PlaybackRights, RightsConfig
from edged.wire.request import RequestReceived
from tests.playback.fakes import PARTS, Origin, World, world

ROUNDS = 15
CALLS = 20_000  # Of a round.
RUN = StreamId(channel="demo", publication=0x1F)
PART = "/live/demo/1f/v0-1.3.m4s"
NAMES = (
    *(b"Host", b"Connection", b"sec-ch-ua", b"User-Agent", b"sec-ch-ua-mobile", b"Accept"),
    *(b"Origin", b"Sec-Fetch-Site", b"Sec-Fetch-Mode", b"Sec-Fetch-Dest", b"Referer"),
    *(b"Accept-Encoding", b"Accept-Language"),
)
KEY = import_key("HS256", b"put-at-least-32-characters-of-chance-here")


@contextmanager
def opened(*channels: str, protected: bool) -> Iterator[World]:
    """An edge with one live channel; with the gate as a PoP has it, or without any."""
    with world() as made:
        hls = HlsService(
            lookup={"demo": RUN}.get,
            subscribe=lambda _: None,
            unsubscribe=lambda _: None,
            now=made.pump.now,
        )
        if protected:
            gate = RightsGate(
                made.server, hls, proxies=(), unix_now=time.time, window_s=lambda: 30.0
            )
            keys = TokenKeys({"a": TokenKey("HS256", KEY)})
            gate.use(PlaybackRights(RightsConfig(channels=channels), keys.verify))
        else:
            made.server.mount("/live/", hls)
        origin = Origin()
        hls._channel("demo", made.pump.now())
        hls.window_updated(RUN, origin.start())
        for _ in range(2 * PARTS):
            hls.window_updated(RUN, origin.both())
            made.pump.flush()
        yield made


def measure(made: World, path: str = PART, *fields: tuple[bytes, bytes], calls: int) -> float:
    """Microseconds of CPU time for a request, the median of the rounds."""
    common = [(name, b"x" * 40) for name in NAMES]
    request = RequestReceived(
        method="GET", path=path, query="", fields=[*common, *fields], keep_alive=True
    )
    exchange = made.client().connection.handler
    assert isinstance(exchange, Exchange)
    respond, now, rounds = made.server.respond, made.pump.now(), []
    response = respond(request, exchange, now)
    assert response is not None
    assert response.status == 200, response.status
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(calls):
            respond(request, exchange, now)
        rounds.append((time.process_time() - began) / calls * 1e6)
    return statistics.median(rounds)


def run(calls: int = CALLS) -> dict[str, float]:
    """Microseconds by case."""
    token = sign_token({"channels": "demo", "exp": time.time() + 3600}, KEY, algorithm="HS256")
    found: dict[str, float] = {}
    with opened(protected=False) as made:
        found["no gate"] = measure(made, calls=calls)
    with opened(protected=True) as made:
        found["nothing is protected"] = measure(made, calls=calls)
    with opened("other", protected=True) as made:
        found["another channel is"] = measure(made, calls=calls)
    with opened("*", protected=True) as made:
        found["token in the path"] = measure(made, f"/t/{token}{PART}", calls=calls)
        bearer = (b"Authorization", f"Bearer {token}".encode())
        found["token in a field"] = measure(made, PART, bearer, calls=calls)
        cookie = (b"Cookie", f"edged_token={token}".encode())
        found["token in a cookie"] = measure(made, PART, cookie, calls=calls)
    return found
