from edged.backbone.probe_answers import ProbeAnswers
from edged.media.routing import OriginRow, OriginState, PathProbe, RoutingTable
from edged.policy.pop_view import PopView
from edged.roles.path_metrics import ANSWER_SPECS, SPECS, read_answers, read_paths


def test_paths_to_the_origins_of_the_table_are_told() -> None:
    view = PopView("ams")
    rows = tuple(OriginRow(name, "127.0.0.1:1", OriginState.UP) for name in ("o1", "o2"))
    table = RoutingTable(epoch=1, version=1, issued=0.0, ttl_s=9.0, lease_ttl_s=9.0, rows=rows)
    view.accept_table(table, 0.0)
    assert list(read_paths("pop ams", view)) == []
    view.observe_path("o1", PathProbe(20.0, 0.25, 8.0, 2.0, 1.5, False, True))
    view.observe_path("gone", PathProbe(1.0))
    samples = list(read_paths("pop ams", view))
    assert [sample.name for sample in samples] == [spec.name for spec in SPECS]
    assert [sample.value for sample in samples] == [0.02, 0.002, 0.25, 1e6, 1.5, 1]
    assert {sample.labels["origin"] for sample in samples} == {"o1"}


def test_answers_are_counted() -> None:
    samples = list(read_answers("origin a", ProbeAnswers(0, lambda: 0.0)))
    assert [sample.name for sample in samples] == [spec.name for spec in ANSWER_SPECS]
    assert [sample.value for sample in samples] == [0, 0, 0]
