"""Where a peer is: its address, of IPv6 its network."""

import pytest

from edged.media.place import place_of


@pytest.mark.parametrize(
    ("peer", "place"),
    [
        ("10.0.0.7:50112", "10.0.0.7"),
        ("[2001:db8:1:2:3:4:5:6]:50112", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:1", "2001:db8:1:2::/64"),
        ("[::ffff:10.0.0.7]:1", "10.0.0.7"),
        ("[fe80::1%eth0]:1", "fe80::/64"),
        ("host.example:1", "host.example"),
        ("somebody", "somebody"),
        ("", ""),
    ],
)
def test_where_a_peer_is(peer: str, place: str) -> None:
    assert place_of(peer) == place
