"""The IRS role: built from its table, serving and scraped; the service itself has its own tests."""

from pathlib import Path

import pytest
import trio

from edged.errors import ConfigError
from edged.roles.irs import IrsRole
from edged.runtime.listeners import parse_address
from edged.runtime.metrics import Metrics
from tests.roles.network import configure


async def test_it_serves_where_it_is_told() -> None:
    metrics = Metrics()
    role = IrsRole(configure({"irs": {"listen": "127.0.0.1:0"}}), metrics)
    assert role.name == "irs"
    assert role.streams() == []
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(role.run)
        host, port = parse_address(addresses["irs"])
        async with await trio.open_tcp_stream(host, port) as stream:
            await stream.send_all(b"\xff" * 64)
            with trio.fail_after(5):
                assert await stream.receive_some()  # It says what is wrong with that.
        assert b"edged_irs_plans_total" in metrics.render()
        nursery.cancel_scope.cancel()


def test_certificates_are_read_at_once(tmp_path: Path) -> None:
    for name in ("ca", "certificate", "key"):
        (tmp_path / name).touch()
    files = {name: str(tmp_path / name) for name in ("ca", "certificate", "key")}
    config = configure({"irs": {"listen": "[::]:0", "tls": files}})
    with pytest.raises(ConfigError, match=f"tls: ca {tmp_path / 'ca'}"):
        IrsRole(config, Metrics())
