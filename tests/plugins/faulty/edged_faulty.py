"""A plug-in that fails in every way that one can, when its peer says so."""

from functools import partial

import trio
from msgspec import Struct

from edged.ingest.plugin import Door, IngestPlugin
from edged.media.track import Codec
from edged.runtime.connection import Connection, PumpClass
from edged.runtime.keeping import run_for
from edged.runtime.listeners import serve


class FaultyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ingest.faulty]`."""

    listen: str
    broken_file: str = ""  # While it is there the plug-in does not start.


class Session:
    """Says hello, and does what it is told."""

    def __init__(self, connection: Connection, nursery: trio.Nursery, die: trio.Event) -> None:
        self._connection, self._nursery, self._die = connection, nursery, die
        connection.write(b"hello\n")

    def data_received(self, data: memoryview, now: float) -> None:
        match bytes(data).strip():
            case b"raise":
                raise ZeroDivisionError("in the pump")
            case b"raise later":
                self._nursery.start_soon(run_for, self._connection, self._raise)
            case b"die":
                self._die.set()

    def handle_timeout(self, now: float) -> None:
        pass

    def connection_lost(self, reason: str) -> None:
        pass

    def drained(self) -> None:
        pass

    async def _raise(self) -> None:
        await trio.sleep(0.01)
        raise ZeroDivisionError("in a task")


async def serve_faulty(
    config: Struct, door: Door, *, task_status: trio.TaskStatus[dict[str, str]]
) -> None:
    """Listen until somebody says die."""
    assert isinstance(config, FaultyConfig)
    if config.broken_file and await trio.Path(config.broken_file).exists():
        raise RuntimeError(f"broken by {config.broken_file}")
    die = trio.Event()
    async with trio.open_nursery() as nursery:
        address: str = await nursery.start(
            partial(
                serve,
                door.pump,
                config.listen,
                lambda connection: Session(connection, nursery, die),
                PumpClass.PUBLISHER,
            )
        )
        task_status.started({"faulty": address})
        await die.wait()
        raise KeyError("the plug-in's own bug")


plugin = IngestPlugin(
    name="faulty", config_type=FaultyConfig, serve=serve_faulty, codecs=(Codec.H264,)
)
