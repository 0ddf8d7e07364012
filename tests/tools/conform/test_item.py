from msgspec.structs import replace

from edged.tools.conform.item import NotSeen, blocks, playlist_of, probed, settle, status_of
from edged.tools.conform.observe import Observation


def test_probes(ours: Observation) -> None:
    assert probed(ours, "plain") is ours.probes["plain"]
    assert isinstance(probed(ours, "nothing"), NotSeen)
    assert isinstance(status_of(ours, "nothing", 200), NotSeen)
    assert status_of(ours, "plain", 200, at_once=True) == []
    assert status_of(ours, "plain", 404) == [f"{ours.main.url}: status 200, not 404"]
    ours.probes["plain"] = replace(ours.probes["plain"], head_at=1e12)
    assert "200 only after" in str(status_of(ours, "plain", 200, at_once=True))


def test_playlists(ours: Observation) -> None:
    found = playlist_of(ours.probes["plain"])
    assert not isinstance(found, str)
    assert found.segments
    assert playlist_of(replace(ours.probes["plain"], status=503)) == (
        f"{ours.main.url}: status 503, not a playlist"
    )
    assert "not #EXTM3U" in str(playlist_of(replace(ours.probes["plain"], body=b"")))


def test_what_was_found_is_never_dropped(ours: Observation) -> None:
    assert settle(["a"], 0, "why") == ["a"]
    assert settle([], 1, "why") == []
    assert settle([], 0, "why") == NotSeen("why")
    assert blocks(ours)
