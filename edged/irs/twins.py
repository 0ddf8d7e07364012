"""Two addresses of `irs_client.addresses` that lead to one IRS: one of them is kept.

IRS says so when it refuses the second session. Its address is left alone while the first session
stands, and tried again now and then: names may come to mean another host.
"""

from collections.abc import Container
from typing import NoReturn

import trio

from edged.errors import RemoteProtocolError
from edged.wire.table import Goodbye

RETRY_S = 300.0
POLL_S = 0.5


class Twins:
    """Of one PoP or origin."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}  # Address -> the one that leads to the same IRS.

    def take_goodbye(self, address: str, goodbye: Goodbye) -> NoReturn:
        """End the session, for IRS has said so."""
        if goodbye.twin:
            self.known[address] = goodbye.twin
        raise RemoteProtocolError(f"irs ended the session: {goodbye.reason}")

    async def wait(self, address: str, sessions: Container[str]) -> None:
        """Stay away while the other address has its session; `sessions`: those that stand."""
        twin = self.known.get(address)
        if twin is not None:
            with trio.move_on_after(RETRY_S):
                while twin in sessions:  # noqa: ASYNC110 - it is no hurry
                    await trio.sleep(POLL_S)

    def connected(self, address: str) -> None:
        """It is tried again: IRS will say if it is as before."""
        self.known.pop(address, None)

    def faults(self) -> list[str]:
        """What is wrong, in words."""
        return [
            f"irs_client.addresses: {address} and {twin} are one irs, so no other stands by there"
            for address, twin in sorted(self.known.items())
        ]
