from edged.backbone.segments_out import SegmentsOutStatistics
from edged.origin.service import OriginConfig, OriginService
from edged.roles.window_metrics import SPECS, read_window_metrics
from tests.origin.test_service import Setting, feed


def test_every_metric_has_its_value() -> None:
    setting = Setting()
    feed(setting.open())
    out = SegmentsOutStatistics(given=3, given_bytes=4_000, refused=2)
    samples = list(read_window_metrics("origin a", setting.service.statistics(), out))
    assert {sample.name for sample in samples} == {spec.name for spec in SPECS}
    values = {(sample.name, sample.labels.get("place", "")): sample.value for sample in samples}
    assert values["edged_origin_window_bytes", "memory"] > 10_000
    assert values["edged_origin_window_bytes", "disk"] == 0
    assert values["edged_origin_segments_given_total", ""] == 3
    assert values["edged_origin_segments_given_bytes_total", ""] == 4_000
    assert values["edged_origin_segments_refused_total", ""] == 2


def test_without_streams_there_is_nothing() -> None:
    service = OriginService(
        OriginConfig(name="a"),
        publish=lambda *_: None,
        packaged=lambda *_: None,
        failed=lambda *_: None,
    )
    out = SegmentsOutStatistics(given=0, given_bytes=0, refused=0)
    assert not any(sample.value for sample in read_window_metrics("a", service.statistics(), out))
