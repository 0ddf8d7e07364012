"""Networks with processes that a test may kill: an IRS, origins, and PoPs; with TLS if wished."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from msgspec import Struct

from tests.e2e.network import Edged, make_certificates, open_edged, take_ports, tls

ORIGINS = ("fra1", "fra2")
SESSIONS_PER_ORIGIN = 4  # Of a PoP: control, and media of three classes.


def key_of(channel: str) -> str:
    """A channel's stream key."""
    return f"key-of-{channel}-only"


class Pair(Struct, kw_only=True):
    """A PoP and its origins, two unless said otherwise; perhaps more PoPs and IRSs."""

    folder: Path
    irss: dict[str, Edged]
    origins: dict[str, Edged]
    pops: dict[str, Edged]
    ports: dict[str, int]

    @property
    def irs(self) -> Edged:
        """The first IRS."""
        return next(iter(self.irss.values()))

    @property
    def pop(self) -> Edged:
        """The first PoP."""
        return next(iter(self.pops.values()))

    @property
    def http(self) -> str:
        """Where viewers of the first PoP go."""
        return self.playback(next(iter(self.pops)))

    def playback(self, pop: str) -> str:
        """Where viewers of a PoP go."""
        return f"http://127.0.0.1:{self.ports[f'{pop}.http']}"

    def publish_url(self, channel: str = "one", pop: str = "") -> str:
        """Where an encoder publishes, with the key."""
        port = self.ports[f"{pop or next(iter(self.pops))}.rtmp"]
        return f"rtmp://127.0.0.1:{port}/live/{key_of(channel)}"

    async def home(self, count: int = 1) -> str:
        """Which origin has the stream, after the first PoP placed streams so many times."""
        line = await self.pop.wait_log("stream placed", count=count)
        return str(line["origin"])

    def homes(self) -> dict[str, str]:
        """Channel -> origin, as they were placed last."""
        lines = self.pop.log("stream placed")
        return {str(line["channel"]): str(line["origin"]) for line in lines}


@contextlib.asynccontextmanager
async def open_pair(  # noqa: PLR0913 -- each has a default and is named by the caller
    origins: Sequence[str] = ORIGINS,
    pops: Sequence[str] = ("ams1",),
    channels: Sequence[str] = ("one",),
    *,
    irss: Sequence[str] = ("irs",),
    irs_keys: str = "",
    doomed: Sequence[str] = ORIGINS,
    pop_tables: str = "",
    origin_tables: str = "",
    origin_keys: str = "",
    latency: str = "default",
    secure: bool = False,
) -> AsyncIterator[Pair]:
    """Run it until the block ends; `doomed`: what the test may kill; `irs_keys`: more of `[irs]`.

    `secure`: IRS and backbone are under TLS, each host with its certificate.
    Each host's metrics are at `ports["NAME.metrics"]`. `pop_tables`, `origin_tables`: TOML for all
    of them; `origin_keys`: more of `[origin]`. `latency`: the class that all keys name.
    """
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name:
        folder = Path(name)
        hosts_all = (*irss, *origins, *pops)
        ports = take_ports(
            [
                *(*irss, *origins),
                *(f"{pop}.{what}" for pop in pops for what in ("rtmp", "http")),
                *(f"{host}.metrics" for host in hosts_all),  # Port 0 may be given another's.
            ]
        )
        at = {what: f"127.0.0.1:{port}" for what, port in ports.items()}
        client = f"[irs_client]\naddresses = {[at[irs] for irs in irss]}\n"
        roles = {
            **dict.fromkeys(irss, "irs"),
            **dict.fromkeys(origins, "origin"),
            **dict.fromkeys(pops, "pop"),
        }
        own = dict.fromkeys(roles, "")
        if secure:
            await make_certificates(folder, roles)
            own = {host: tls(role, host) for host, role in roles.items()}
        texts = {
            irs: f'[irs]\nlisten = "{at[irs]}"\nwarmup_s = 0.0\n{irs_keys}{own[irs]}'
            for irs in irss
        }
        for origin in origins:
            texts[origin] = (
                f'[origin]\nname = "{origin}"\nlisten = "{at[origin]}"\n{origin_keys}'
                f"{own[origin]}{client}"
                f"{origin_tables}"
            )
        keys = "".join(
            f'[[stream_keys.static]]\nchannel = "{channel}"\nkey = "{key_of(channel)}"\n'
            f'latency = "{latency}"\n'
            for channel in channels
        )
        for pop in pops:
            texts[pop] = (
                f'[pop]\nname = "{pop}"\n{own[pop]}{client}'
                f'table_file = "{folder}/{pop}.table"\npersist_interval_s = 0.1\n'
                f'[ingest.rtmp]\nlisten = "{at[f"{pop}.rtmp"]}"\n'
                f'[playback]\nlisten = "{at[f"{pop}.http"]}"\n{keys}{pop_tables}'
            )
        async with contextlib.AsyncExitStack() as stack:
            hosts: dict[str, Edged] = {}
            for host, text in texts.items():
                path = folder / f"{host}.toml"
                common = f'[admin]\nsocket = "{folder}/{host}.sock"\n'
                port = ports[f"{host}.metrics"]
                path.write_text(text + common + f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
                hosts[host] = await stack.enter_async_context(
                    open_edged(folder, host, "run", "-c", str(path), doomed=host in doomed)
                )
            for pop in pops:
                count = SESSIONS_PER_ORIGIN * len(origins)
                await hosts[pop].wait_log("backbone session started", count=count)
            yield Pair(
                folder=folder,
                irss={irs: hosts[irs] for irs in irss},
                origins={origin: hosts[origin] for origin in origins},
                pops={pop: hosts[pop] for pop in pops},
                ports=ports,
            )
