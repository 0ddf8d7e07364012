"""Where a peer is, as far as limits by address go: whoever has one address may have many."""

import ipaddress

IPV6_HOST_BITS = 64  # One subscriber has at least a /64, and every address in it (RFC 6177 §2).


def place_of(peer: str) -> str:
    """Where a peer ("10.0.0.7:50112", "[2001:db8::7]:50112") is: its address, of IPv6 the /64."""
    host = peer.rpartition(":")[0].removeprefix("[").removesuffix("]") or peer
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    prefix = int(address) >> IPV6_HOST_BITS << IPV6_HOST_BITS
    return f"{ipaddress.IPv6Address(prefix)}/64"
