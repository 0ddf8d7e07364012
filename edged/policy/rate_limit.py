"""Requests per client: never more than so many within any WINDOW_S, however they are spread.

A client's requests are counted by slots of SLOT_S; what counts now are those of the slot at hand
and of the SLOTS before it. So a client is never let in too early, and up to SLOT_S late.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from msgspec import Struct

from edged.media.place import place_of

WINDOW_S = 60.0
SLOTS = 12
SLOT_S = WINDOW_S / SLOTS
# Beyond it the client that has been silent for the longest is forgotten, and counts anew: who has
# more addresses than that can't be held by a count per address. At most 15 MB in all.
CLIENTS_MAX = 20_000
HOPS_MAX = 16  # Of X-Forwarded-For that are looked at, from the nearest on.

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Verdict(Struct, frozen=True):
    """Whether one request is let in, and what the client is told of its limit."""

    allowed: bool
    left: int  # Requests that it has left now.
    reset_s: float  # Until some of those used count no more; 0 when none is used.


class RateLimit:
    """The limit of all clients of one process."""

    def __init__(self, per_window_max: int, *, clients_max: int = CLIENTS_MAX) -> None:
        self.per_window_max = per_window_max
        self._clients_max = clients_max
        self._clients: dict[str, dict[int, int]] = {}  # Slot -> count; the last heard of is last.

    def __len__(self) -> int:
        return len(self._clients)

    def admit(self, client: str, now: float) -> Verdict:
        """Count a request, unless it is one too many."""
        slot = int(now // SLOT_S)
        counts = self._clients.pop(client, {})
        for old in [known for known in counts if known < slot - SLOTS]:
            del counts[old]
        self._clients[client] = counts
        if len(self._clients) > self._clients_max:
            del self._clients[next(iter(self._clients))]
        used = sum(counts.values())
        allowed = used < self.per_window_max
        if allowed:
            counts[slot] = counts.get(slot, 0) + 1
            used += 1
        oldest = min(counts, default=slot)
        reset_s = (oldest + SLOTS + 1) * SLOT_S - now
        return Verdict(allowed, self.per_window_max - used, reset_s)

    def is_spent(self, client: str, now: float) -> bool:
        """Whether `admit` would refuse; nothing is counted."""
        counts, slot = self._clients.get(client), int(now // SLOT_S)
        if counts is None:
            return False
        used = sum(count for known, count in counts.items() if known >= slot - SLOTS)
        return used >= self.per_window_max


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks ("10.0.0.7", "2001:db8::/32"); raises ValueError that names one."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def choose_client(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address that a request counts for: the nearest that is no proxy of ours.

    `peer` is "HOST:PORT" of the connection; `forwarded` the X-Forwarded-For fields in order, which
    count only as far as trusted proxies wrote them. What a proxy wrote that is no address counts
    for the proxy.
    """
    address = _address(peer.rpartition(":")[0])
    if address is None:
        return peer.rpartition(":")[0] or peer
    if not _is_in(address, trusted):
        return str(address)  # Without the brackets of IPv6.
    hops = [hop.strip() for field in forwarded for hop in field.split(",")][-HOPS_MAX:]
    for hop in reversed(hops):
        found = _address(hop)
        if found is None:
            break
        address = found
        if not _is_in(found, trusted):
            break
    return str(address)


def count_for(address: str) -> str:
    """What an address is counted by: itself, of IPv6 the /64, as wrong stream keys are."""
    return place_of(f"[{address.removeprefix('[').removesuffix(']')}]:0")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def _is_in(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Sequence[Network]
) -> bool:
    return any(address in network for network in networks if network.version == address.version)
