"""The board and the alerts in config/: they speak of metrics that exist, and the alerts fire.

Prometheus' own promtool parses every expression and runs each alert against made-up series.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec import Struct, yaml

from tests.conftest import require
from tests.test_docs import all_metrics

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "config" / "alerts.yml"
BOARD = json.loads((ROOT / "config" / "grafana.json").read_text())
METRICS = all_metrics()
TARGET_LABELS = {"job", "instance"}  # What Prometheus gives to all of a target's series.
OTHERS = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity"}}
GRID_WIDTH = 24
OVER_TIME = {"rate", "irate", "increase"}  # Only these make sense of what counts up.
TOKEN = re.compile(
    r"""(?P<string>"[^"]*")|(?P<window>\[[^\]]*\])|(?P<name>[a-zA-Z_:$][\w:$]*)"""
    r"""|(?P<number>[\d.]+[smhdwy]*)|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>={}(),])|\s+"""
)
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = GROUPING | {"and", "or", "unless", "bool", "offset"}


class Use(Struct, frozen=True):
    """One metric in an expression."""

    metric: str
    labels: frozenset[str]  # That it is selected by.
    functions: tuple[str, ...]  # That it is inside of, the outermost first.
    windowed: bool


class Alert(Struct, kw_only=True):
    alert: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    for_: str = "0s"


def alerts() -> list[Alert]:
    file = yaml.decode(ALERTS.read_bytes())
    return [
        Alert(for_=rule.pop("for", "0s"), **rule)
        for group in file["groups"]
        for rule in group["rules"]
    ]


def panels() -> list[dict[str, object]]:
    found: list[dict[str, object]] = BOARD["panels"]
    return found


def board_expressions() -> Iterator[tuple[str, str, str]]:
    """Panel, expression and legend."""
    for panel in BOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]
    for annotation in BOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"], annotation["titleFormat"]


def expressions() -> dict[str, str]:
    """All of them, by where they are."""
    found = {alert.alert: alert.expr for alert in alerts()}
    for number, (panel, expression, _) in enumerate(board_expressions()):
        found[f"board {number}: {panel}"] = expression
    return found


def tokens(expression: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(expression):
        match = TOKEN.match(expression, place)
        assert match is not None, f"{expression!r} at {expression[place:]!r}"
        place = match.end()
        if match.lastgroup is not None:
            yield match.lastgroup, match[0]


def uses_of(expression: str) -> tuple[list[Use], set[str]]:
    """The metrics of an expression, and the labels that it groups or joins by."""
    parts = [*tokens(expression), ("end", "")]
    uses: list[Use] = []
    grouped: set[str] = set()
    calls: list[str] = []  # Of each open parenthesis, what is in front of it.
    at = 0
    while at < len(parts):
        kind, text = parts[at]
        at += 1
        if text == "(":
            calls.append("")
        elif text == ")":
            calls.pop()
        elif kind != "name":
            continue
        elif text in GROUPING:
            end = next(i for i in range(at, len(parts)) if parts[i][1] == ")")
            grouped |= {name for what, name in parts[at:end] if what == "name"}
            at = end + 1
        elif text in WORDS:
            continue
        elif parts[at][1] == "(":
            calls.append(text)
            at += 1
        elif parts[at][1] in GROUPING:  # sum by (...) (...)
            end = next(i for i in range(at, len(parts)) if parts[i][1] == ")")
            grouped |= {name for what, name in parts[at + 1 : end] if what == "name"}
            assert parts[end + 1][1] == "("
            calls.append(text)
            at = end + 2
        else:
            labels: set[str] = set()
            if parts[at][1] == "{":
                end = next(i for i in range(at, len(parts)) if parts[i][1] == "}")
                labels = {name for what, name in parts[at:end] if what == "name"}
                at = end + 1
            windowed = parts[at][0] == "window"
            uses.append(Use(text, frozenset(labels), tuple(filter(None, calls)), windowed))
    return uses, grouped


def test_the_reader_of_expressions_reads() -> None:
    """Or the tests below would find nothing wrong."""
    uses, grouped = uses_of(
        'topk(3, sum by (job, a) (rate(x_total{l="v", m=~"w.*"}[5m]))) > 0.5 * y and on (b) z'
    )
    assert uses == [
        Use("x_total", frozenset({"l", "m"}), ("topk", "sum", "rate"), windowed=True),
        Use("y", frozenset(), (), windowed=False),
        Use("z", frozenset(), (), windowed=False),
    ]
    assert grouped == {"job", "a", "b"}


@pytest.mark.parametrize(("where", "expression"), [*expressions().items()])
def test_an_expression_speaks_of_what_exists(where: str, expression: str) -> None:
    uses, grouped = uses_of(expression)
    assert uses
    known: set[str] = set(TARGET_LABELS)
    for use in uses:
        if use.metric in OTHERS:
            labels = OTHERS[use.metric]
        else:
            assert use.metric in METRICS, use.metric
            labels = set(METRICS[use.metric].labels)
            counts = use.metric.endswith("_total")
            over_time = bool(set(use.functions) & OVER_TIME)
            assert counts is over_time, f"{use.metric}: rate() is for what counts up, and only that"
            assert use.windowed is bool(set(use.functions) & (OVER_TIME | {"changes"}))
        assert use.labels <= labels | TARGET_LABELS, f"{use.metric}: {use.labels}"
        known |= labels
    assert grouped <= known


def test_promtool_reads_every_expression(tmp_path: Path) -> None:
    """The board's too: as rules that record, with Grafana's variables filled in."""
    require("promtool")
    rules = [
        {
            "record": f"board_{number}",
            "expr": expr.replace("$__rate_interval", "5m").replace("$job", "edged"),
        }
        for number, (_, expr, _) in enumerate(board_expressions())
    ]
    board = tmp_path / "board.yml"
    board.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    done = promtool("check", "rules", str(ALERTS), str(board))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    names = [alert.alert for alert in alerts()]
    assert len(names) == len(set(names)) > 15
    for alert in alerts():
        assert re.fullmatch(r"Edged[A-Za-z]+", alert.alert)
        assert set(alert.labels) == {"severity"}, alert.alert
        assert alert.labels["severity"] in ("page", "ticket"), alert.alert
        assert set(alert.annotations) == {"summary", "runbook"}, alert.alert
        assert len(alert.annotations["summary"]) > 15, alert.alert
        runbook = alert.annotations["runbook"]
        assert len(runbook) > 60, alert.alert
        for other in re.findall(r"\bEdged[A-Z]\w+", runbook):
            assert other in names, f"{alert.alert}: {other}"
        for metric in re.findall(r"\bedged_\w+", runbook):
            assert metric in METRICS, f"{alert.alert}: {metric}"
        shown = set(re.findall(r"\$labels\.(\w+)", alert.annotations["summary"]))
        uses, grouped = uses_of(alert.expr)
        has = grouped | TARGET_LABELS if re.match(r"sum by", alert.expr) else set(TARGET_LABELS)
        for use in uses[:1]:
            has |= set(METRICS[use.metric].labels) if use.metric in METRICS else set()
        assert shown <= has, alert.alert


# By alert: series that make it fire, as promtool writes them, and series that must not.
POP = 'job="edged", instance="a", role="pop ams1"'
TO = f'{POP}, origin="fra1"'
PLUGIN = f'{POP}, plugin="toy"'
HOST = 'job="edged", instance="a"'
ORIGIN = f'{HOST}, role="origin fra1"'
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "EdgedDown": ({f"up{{{HOST}}}": "0x30"}, {f"up{{{HOST}}}": "1x30", 'up{job="other"}': "0x30"}),
    "EdgedRestarting": (
        {f"edged_process_start_seconds{{{HOST}}}": "1x20 2 3 4x8"},
        {f"edged_process_start_seconds{{{HOST}}}": "1x20 2 3x9"},
    ),
    "EdgedMemoryHigh": (
        {
            f"edged_process_resident_bytes{{{HOST}}}": "87x30",
            f"edged_process_memory_max_bytes{{{HOST}}}": "100x30",
        },
        {
            f"edged_process_resident_bytes{{{HOST}}}": "84x30",
            f"edged_process_memory_max_bytes{{{HOST}}}": "100x30",
        },
    ),
    "EdgedDescriptorsHigh": (
        {f"edged_process_fds{{{HOST}}}": "81x30", f"edged_process_fds_max{{{HOST}}}": "100x30"},
        {f"edged_process_fds{{{HOST}}}": "79x30", f"edged_process_fds_max{{{HOST}}}": "100x30"},
    ),
    "EdgedCpuSaturated": (
        {f"edged_process_cpu_seconds_total{{{HOST}}}": "0+57x30"},
        {f"edged_process_cpu_seconds_total{{{HOST}}}": "0+50x30"},
    ),
    "EdgedLoopLags": (
        {f"edged_pump_lag_seconds{{{POP}}}": "0.3x30"},
        {f"edged_pump_lag_seconds{{{POP}}}": "0.2x30"},
    ),
    "EdgedServiceFails": (
        {f'edged_service_restarts_total{{{POP}, service="x"}}': "0x10 1 2 3 4 5x16"},
        {f'edged_service_restarts_total{{{POP}, service="x"}}': "0x10 1 2x19"},
    ),
    "EdgedPublishersRefused": (
        {f"edged_ingest_refused_total{{{POP}}}": "0+60x30"},
        {f"edged_ingest_refused_total{{{POP}}}": "0+20x30"},
    ),
    "EdgedPluginDown": (
        {f"edged_ingest_plugin_up{{{PLUGIN}}}": "0x30"},
        {f"edged_ingest_plugin_up{{{PLUGIN}}}": "1x30"},
    ),
    "EdgedPluginFails": (
        {f"edged_ingest_plugin_failures_total{{{PLUGIN}}}": "0x10 1 2 3 4 5x16"},
        {f"edged_ingest_plugin_failures_total{{{PLUGIN}}}": "0x10 1 2x19"},
    ),
    "EdgedBackboneSessionsMissing": (
        {f"edged_backbone_sessions{{{TO}}}": "3x30"},
        {f"edged_backbone_sessions{{{TO}}}": "4x30"},
    ),
    "EdgedBackboneReconnects": (
        {f"edged_backbone_reconnects_total{{{TO}}}": "0+1x30"},
        {f"edged_backbone_reconnects_total{{{TO}}}": "0x20 4x10"},
    ),
    "EdgedUnitsSkipped": (
        {f"edged_backbone_units_skipped_total{{{TO}}}": "0+5x30"},
        {f"edged_backbone_units_skipped_total{{{TO}}}": "5x30"},
    ),
    "EdgedPartsMissing": (
        {
            f"edged_playback_parts_missing_total{{{POP}}}": "0x30",
            f"edged_playback_segments_missing_total{{{POP}}}": "0x27 1x3",
        },
        {
            f"edged_playback_parts_missing_total{{{POP}}}": "7x30",
            f"edged_playback_segments_missing_total{{{POP}}}": "7x30",
        },
    ),
    "EdgedWindowTooSmall": (
        {f"edged_playback_evicted_needed_total{{{POP}}}": "0x25 1x5"},
        {f"edged_playback_evicted_needed_total{{{POP}}}": "1x30"},
    ),
    "EdgedDiskCacheFails": (
        {
            f"edged_cache_disk_failures_total{{{POP}}}": "0x25 1x5",
            f"edged_cache_lost_total{{{POP}}}": "0x30",
        },
        {
            f"edged_cache_disk_failures_total{{{POP}}}": "3x30",
            f"edged_cache_lost_total{{{POP}}}": "2x30",
        },
    ),
    "EdgedViewersTooSlow": (
        {
            f"edged_playback_stalled_total{{{POP}}}": "0+10x30",
            f"edged_playback_connections_total{{{POP}}}": "0+100x30",
        },
        {  # Few of many, though some each second.
            f"edged_playback_stalled_total{{{POP}}}": "0+10x30",
            f"edged_playback_connections_total{{{POP}}}": "0+1000x30",
        },
    ),
    "EdgedServerErrors": (
        {
            f'edged_playback_responses_total{{{POP}, status="200"}}': "0+100x30",
            f'edged_playback_responses_total{{{POP}, status="503"}}': "0+2x30",
        },
        {
            f'edged_playback_responses_total{{{POP}, status="200"}}': "0+1000x30",
            f'edged_playback_responses_total{{{POP}, status="404"}}': "0+500x30",
            f'edged_playback_responses_total{{{POP}, status="503"}}': "0+2x30",
        },
    ),
    "EdgedPopWithoutIrs": (
        {f"edged_routing_irs_sessions{{{POP}}}": "1x10 0x20"},
        {
            f"edged_routing_irs_sessions{{{POP}}}": "1x30",
            f'edged_routing_irs_sessions{{{HOST}, role="origin fra1"}}': "0x30",
        },
    ),
    "EdgedOriginWithoutIrs": (
        {f'edged_routing_irs_sessions{{{HOST}, role="origin fra1"}}': "0x30"},
        {f"edged_routing_irs_sessions{{{POP}}}": "0x30"},
    ),
    "EdgedLaddersWait": (
        {f"edged_ladder_waiting_streams{{{ORIGIN}}}": "2x30"},
        {f"edged_ladder_waiting_streams{{{ORIGIN}}}": "2x25 0 2x4"},
    ),
    "EdgedLadderSlotsShort": (
        {
            f'edged_ladder_slots{{{ORIGIN}, which="used"}}': "91x30",
            f'edged_ladder_slots{{{ORIGIN}, which="total"}}': "100x30",
        },
        {  # Before they are measured there are none.
            f'edged_ladder_slots{{{ORIGIN}, which="used"}}': "89x30",
            f'edged_ladder_slots{{{ORIGIN}, which="total"}}': "100x30",
            f'edged_ladder_slots{{{HOST}, role="origin ams1", which="used"}}': "0x30",
            f'edged_ladder_slots{{{HOST}, role="origin ams1", which="total"}}': "0x30",
        },
    ),
    "EdgedLaddersPreempted": (
        {f"edged_ladder_preemptions_total{{{ORIGIN}}}": "0x18 1 2 3 4 5x8"},
        {f"edged_ladder_preemptions_total{{{ORIGIN}}}": "7x18 8 9x11"},
    ),
    "EdgedLadderRungsShed": (
        {f"edged_ladder_shed_rungs{{{ORIGIN}}}": "1x30"},
        {f"edged_ladder_shed_rungs{{{ORIGIN}}}": "1x25 0x5"},
    ),
    "EdgedLaddersFail": (
        {f"edged_ladder_restarts_total{{{ORIGIN}}}": "0x20 2 4 6 8x7"},
        {f"edged_ladder_restarts_total{{{ORIGIN}}}": "9x20 10 11x9"},
    ),
    "EdgedNoOriginUsable": (
        {
            f'edged_routing_origins{{{POP}, usable="yes"}}': "0x30",
            f'edged_routing_origins{{{POP}, usable="no"}}': "2x30",
        },
        {
            f'edged_routing_origins{{{POP}, usable="yes"}}': "2x30",
            f'edged_routing_origins{{{POP}, usable="no"}}': "0x30",
        },
    ),
    "EdgedOneOriginLeft": (
        {
            f'edged_routing_origins{{{POP}, usable="yes"}}': "1x30",
            f'edged_routing_origins{{{POP}, usable="no"}}': "1x30",
        },
        {  # A network of one origin has no other to lose.
            f'edged_routing_origins{{{POP}, usable="yes"}}': "1x30",
            f'edged_routing_origins{{{POP}, usable="no"}}': "0x30",
        },
    ),
    "EdgedNoOriginUp": (
        {
            f'edged_irs_origins{{{HOST}, state="up"}}': "1x10 0x20",
            f'edged_irs_origins{{{HOST}, state="down"}}': "1x30",
        },
        {f'edged_irs_origins{{{HOST}, state="up"}}': "1x30"},
    ),
    "EdgedStreamsShed": (
        {f'edged_irs_sheds_total{{{HOST}, class="basic"}}': "0x20 40x9"},
        {f'edged_irs_sheds_total{{{HOST}, class="basic"}}': "40x30"},
    ),
    "EdgedTableOld": (
        {
            f"edged_routing_table_age_seconds{{{POP}}}": "0+60x30",
            f"edged_routing_irs_sessions{{{POP}}}": "1x30",
        },
        {  # Without IRS that is another alert.
            f"edged_routing_table_age_seconds{{{POP}}}": "0+60x30",
            f"edged_routing_irs_sessions{{{POP}}}": "0x30",
        },
    ),
    "EdgedNoIrsActive": (
        {f"edged_irs_active{{{HOST}}}": "0x30"},
        {f"edged_irs_active{{{HOST}}}": "0x15 1x15"},
    ),
    "EdgedIrsStateNotKept": (
        {f'edged_irs_state_saves_total{{outcome="failed",{HOST}}}': "0x20 1+1x10"},
        {f'edged_irs_state_saves_total{{outcome="failed",{HOST}}}': "3x30"},
    ),
    "EdgedTablesRefused": (
        {f"edged_irs_nacks_total{{{HOST}}}": "0+1x30"},
        {f"edged_irs_nacks_total{{{HOST}}}": "0x28 1x2"},
    ),
}


def test_every_alert_fires_when_it_should_and_not_else(tmp_path: Path) -> None:
    """One sample a minute; they are looked at after half an hour."""
    require("promtool")
    assert CASES.keys() == {alert.alert for alert in alerts()}
    tests = []
    for name, pair in CASES.items():
        severity = next(alert.labels["severity"] for alert in alerts() if alert.alert == name)
        for fires, series in zip((True, False), pair, strict=True):
            firing = [{"labels": f'{{severity="{severity}"}}', "value": 1}] if fires else []
            tests.append(
                {
                    "interval": "1m",
                    "name": f"{name} {'fires' if fires else 'does not'}",
                    "input_series": [
                        {"series": one, "values": values} for one, values in series.items()
                    ],
                    "promql_expr_test": [
                        {
                            "expr": f'max by (severity) (ALERTS{{alertname="{name}",'
                            ' alertstate="firing"})',
                            "eval_time": "30m",
                            "exp_samples": firing,
                        }
                    ],
                }
            )
    run_tests(tmp_path, tests)


def test_an_alert_is_told_in_words(tmp_path: Path) -> None:
    require("promtool")
    (alert,) = [alert for alert in alerts() if alert.alert == "EdgedMemoryHigh"]
    summary = "edged at ams1:9464 takes 90% of the memory that it may have"
    host = 'job="edged", instance="ams1:9464"'
    run_tests(
        tmp_path,
        [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f"edged_process_resident_bytes{{{host}}}", "values": "9x30"},
                    {"series": f"edged_process_memory_max_bytes{{{host}}}", "values": "10x30"},
                ],
                "alert_rule_test": [
                    {"eval_time": "4m", "alertname": alert.alert, "exp_alerts": []},
                    {
                        "eval_time": "6m",
                        "alertname": alert.alert,
                        "exp_alerts": [
                            {
                                "exp_labels": {
                                    "job": "edged",
                                    "instance": "ams1:9464",
                                    "severity": "ticket",
                                },
                                "exp_annotations": {
                                    "summary": summary,
                                    "runbook": alert.annotations["runbook"],
                                },
                            }
                        ],
                    },
                ],
            }
        ],
    )


def run_tests(folder: Path, tests: Sequence[Mapping[str, object]]) -> None:
    file = folder / "tests.yml"
    rules = {"rule_files": [str(ALERTS)], "evaluation_interval": "30s", "tests": tests}
    file.write_text(json.dumps(rules))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own arguments
        ["promtool", *arguments],  # noqa: S607 - whichever is installed
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_board_can_be_imported() -> None:
    """Its data source is a variable, and each variable is used and made of what exists."""
    text = json.dumps(BOARD)
    variables = {entry["name"]: entry for entry in BOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance", "role"]
    assert variables["datasource"]["type"] == "datasource"
    assert BOARD["uid"] == "edged"
    assert "id" not in BOARD, "Grafana gives it one"
    sources = set(re.findall(r'"uid": "(\$[^"]*|[^"]{8,})"', text))
    assert sources == {"${datasource}"}
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"}
    assert used == set(variables)
    for name in ("job", "instance", "role"):
        metric = re.match(r"label_values\((\w+)", variables[name]["definition"])
        assert metric is not None
        assert metric[1] in METRICS


def test_the_board_has_a_row_for_each_part_of_the_network() -> None:
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == ["Overview", "Ingest", "Backbone", "Playback", "Origins and IRS", "Processes"]
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(map(str, ids)))
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        assert place["x"] + place["w"] <= GRID_WIDTH
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@pytest.mark.parametrize(("panel", "expression", "legend"), [*board_expressions()])
def test_legends_name_labels_that_there_are(panel: str, expression: str, legend: str) -> None:
    uses, grouped = uses_of(expression)
    has: set[str] = set(TARGET_LABELS)
    for use in uses:
        has |= set(METRICS[use.metric].labels) if use.metric in METRICS else set()
    if re.match(r"(topk\(\d+, )?sum by", expression):
        has = grouped
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= has, panel
