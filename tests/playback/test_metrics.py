"""Every metric is read, by its name."""

from msgspec.structs import replace

from edged.media.stream import StreamId
from edged.playback.hls import HlsService
from edged.playback.metrics import METRICS, register
from edged.runtime.metrics import FAILURES, Metrics
from tests.playback.fakes import PARTS, Origin, world

RUN = StreamId(channel="demo", publication=0x1F)


def test_every_metric_is_exposed() -> None:
    with world() as edge:
        service = HlsService(
            lookup=lambda channel: RUN,
            subscribe=lambda channel: None,
            unsubscribe=lambda channel: None,
            now=edge.pump.now,
        )
        edge.server.mount("/live/", service)
        metrics = Metrics()
        register(metrics, edge.server, service, role="pop-1")
        client, origin = edge.client(), Origin()
        client.ask("/live/demo/master.m3u8")
        service.window_updated(RUN, origin.start() + origin.segment())
        service.window_updated(RUN, origin.part("v0"))
        service.window_updated(RUN, [replace(origin.part("v0")[0], index=0)])
        origin.msn, origin.index = 3, 1
        service.window_updated(RUN, origin.part("v0"))
        edge.pump.flush()
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in metrics.collect()
            for sample in family.samples
        }
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
