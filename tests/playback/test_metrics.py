"""Every metric is read, by its name."""

from msgspec.structs import replace

from edged.media.stream import StreamId
from edged.playback.hls import HlsService
from edged.playback.metrics import METRICS, register
from edged.runtime.metrics import FAILURES, Metrics
from tests.playback.fakes import PARTS, Origin, World, world

RUN = StreamId(channel="demo", publication=0x1F)


def read(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.collect()
        for sample in family.samples
    }


def serve(edge: World) -> tuple[HlsService, Metrics]:
    """One channel, and what is counted of it."""
    service = HlsService(
        lookup=lambda channel: RUN,
        subscribe=lambda channel: None,
        unsubscribe=lambda channel: None,
        now=edge.pump.now,
    )
    edge.server.mount("/live/", service)
    metrics = Metrics()
    register(metrics, edge.server, service, role="pop-1")
    return service, metrics


def test_every_metric_is_exposed() -> None:
    with world() as edge:
        service, metrics = serve(edge)
        client, origin = edge.client(), Origin()
        client.ask("/live/demo/master.m3u8")
        service.window_updated(RUN, origin.start() + origin.segment())
        service.window_updated(RUN, origin.part("v0"))
        service.window_updated(RUN, [replace(origin.part("v0")[0], index=0)])
        origin.msn, origin.index = 3, 1
        service.window_updated(RUN, origin.part("v0"))
        edge.pump.flush()
        samples = read(metrics)
    assert {name for name, *_ in samples} - {FAILURES.name} == {spec.name for spec in METRICS}
    assert samples["edged_playback_responses_total", "pop-1", "200"] == 1
    assert samples["edged_playback_window_bytes", "pop-1"] > 200
    assert samples["edged_cache_fetches_total", "pop-1", "origin"] == 2 * PARTS + 2 + 2
    assert samples["edged_cache_bytes", "pop-1", "memory"] > 200
    assert samples["edged_cache_hit_ratio", "pop-1"] == 1
    assert samples["edged_playback_viewers", "pop-1", "demo"] == 0
    assert samples["edged_playback_parts_missing_total", "pop-1"] == 2
    assert samples["edged_playback_segments_missing_total", "pop-1"] == 1
    assert samples["edged_playback_parts_refused_total", "pop-1"] == 1
    assert samples["edged_playback_evicted_early_total", "pop-1"] == 0


def test_the_hit_ratio_is_of_all_who_ask_for_media() -> None:
    """Of three who ask for the part to come the first is a miss; who comes later is a hit."""
    with world() as edge:
        service, metrics = serve(edge)
        clients, origin = [edge.client() for _ in range(4)], Origin()
        clients[0].ask("/live/demo/master.m3u8")
        service.window_updated(RUN, origin.start() + origin.segment())
        edge.pump.flush()
        assert [answer.status for answer in clients[0].answers()] == [200]
        for client in clients[:3]:
            client.ask("/live/demo/1f/v0-1.0.m4s")
        service.window_updated(RUN, origin.part("v0"))
        edge.pump.flush()
        clients[3].ask("/live/demo/1f/v0-1.0.m4s")
        assert [client.answers()[0].status for client in clients] == [200] * 4
        samples = read(metrics)
    counted = [
        samples[f"edged_cache_{what}_total", "pop-1"] for what in ("misses", "collapsed", "hits")
    ]
    assert counted == [1, 2, 1]
    assert samples["edged_cache_hit_ratio", "pop-1"] == 0.75
