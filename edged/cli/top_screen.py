"""What `edged top` shows, rendered for the width and height that there is."""

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from edged.cli.inspect import format_duration
from edged.roles.health import FPS_SHARE, GOP_S_MAX
from edged.roles.status import LinkSeen, OriginHere, PopSeen, RoleSeen, Status, StreamSeen

WIDE_COLUMNS = 118  # From here on every column is shown,
MIDDLE_COLUMNS = 96  # and below this only what is needed.
HEADING_ROWS = 9  # Around the tables.
STREAMS_MIN = 3
WARNINGS_MAX = 5
LAG_MS_SHED, LAG_MS_HIGH = 500.0, 100.0
BARS = "▁▂▃▄▅▆▇█"
SPARK_COLUMNS = 12
MARKS = {"ok": ("●", "green"), "warn": ("▲", "yellow"), "bad": ("✕", "bold red")}

Row = dict[str, Text]


class Screen:
    """One look; `limit` 0: as many streams as fit."""

    def __init__(
        self, status: Status, limit: int, *, trouble: str = "", age_s: float = 0.0
    ) -> None:
        self.status = status
        self._limit = limit
        self._trouble, self._age_s = trouble, age_s

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give rich the parts."""
        width, status = options.max_width, self.status
        parts: list[RenderableType] = []
        if self._trouble:
            told = f"no answer for {self._age_s:.0f} s: {self._trouble}"
            parts.append(_line(Text(told, "bold white on red"), width))
        parts += [_line(text, width) for text in _summary(status)]
        roles, links = _role_rows(status), _link_rows(status)
        parts += [Text(""), _table(roles, width, hidden={"lag 60 s": MIDDLE_COLUMNS})]
        if links:
            narrow = dict.fromkeys(("skipped", "reconnects"), MIDDLE_COLUMNS)
            parts += [Text(""), _table(links, width, hidden=narrow)]
        rows = self._limit
        if not rows:
            used = HEADING_ROWS + len(roles) + len(links) + WARNINGS_MAX
            rows = max(STREAMS_MIN, (options.height or console.height) - used)
        yield Group(*parts, Text(""), *_streams(status, width, rows))


def _summary(status: Status) -> list[Text]:
    """Two lines: the process, and the big numbers."""
    process, totals = status.process, status.totals
    fds = f"{process.fds}/{process.fds_max}" if process.fds_max > 0 else str(process.fds)
    first = Text.assemble(
        (f"edged {process.version}", "bold"),
        f"  pid {process.pid}  up {format_duration(process.uptime_s)}"
        f"  cpu {100 * process.cpu_share:.0f} %  rss {process.rss_bytes / 2**20:.0f} MiB"
        f"  fds {fds}",
    )
    second = Text.assemble(
        (str(totals.streams), "bold"),
        " live  ",
        (str(totals.viewers), "bold"),
        " viewers  in ",
        (_mbps(totals.in_bps), "bold"),
        "  out ",
        (_mbps(totals.out_bps), "bold"),
        " Mbps  lag ",
        (f"{totals.lag_ms_max:.1f} ms", _lag_style(totals.lag_ms_max)),
        "  ",
    )
    if totals.warnings:
        plural = "" if totals.warnings == 1 else "s"
        second.append(f"▲ {totals.warnings} warning{plural}", "yellow")
    else:
        second.append("● no warnings", "green")
    return [first, second]


def _role_rows(status: Status) -> list[Row]:
    """Each role, with what is told of PoPs, origins and IRS."""
    said = {pop.role: _describe_pop(pop) for pop in status.pops}
    said |= {origin.role: _describe_origin(origin) for origin in status.origins}
    for irs in status.irs:
        connected = sum(pop.connected for pop in irs.pops)
        up = sum(origin.state in ("up", "probation") for origin in irs.origins)
        told = f"table v{irs.version}, {_pops(connected)}, {up} of {len(irs.origins)} origins up"
        told = told if irs.standing == "alone" else f"{irs.standing}, {told}"
        state = "ok" if up == len(irs.origins) else "warn"
        if irs.live is not None:
            told += f", {irs.live.channels} live in the network"
        if irs.live is not None and irs.live.conflicts:
            state, told = "warn", f"{told}, {irs.live.conflicts} at several PoPs"
        said[irs.role] = (state, told)
    return [_role_row(role, *said.get(role.role, ("ok", ""))) for role in status.roles]


def _role_row(role: RoleSeen, state: str, told: str) -> Row:
    pumped = role.kind != "irs"
    return {
        "": _mark(state),
        "role": Text(role.role, "bold"),
        "conns>": Text(str(role.connections) if pumped else ""),
        "lag>": Text(f"{role.lag_ms:.1f} ms" if pumped else "", _lag_style(role.lag_ms)),
        "lag 60 s": Text(spark(role.lag_ms_history, floor=20.0), "dim"),
        "state": Text(told, "" if state == "ok" else MARKS[state][1]),
    }


def _describe_pop(pop: PopSeen) -> tuple[str, str]:
    if pop.table is None:
        return "bad", "no routing table yet"
    people = f"{pop.publishers} publishers, {pop.viewers} viewers"
    if not pop.irs.connected:
        return "warn", f"no IRS for {pop.irs.for_s:.0f} s, table v{pop.table[1]}, {people}"
    return "ok", f"table v{pop.table[1]}, {people}"


def _describe_origin(origin: OriginHere) -> tuple[str, str]:
    told = f"{origin.slots_used} of {origin.slots_total} slots, {_pops(len(origin.pops))}"
    if origin.ladders is not None:
        ladders = origin.ladders
        told += f", ladders {ladders.used} of {ladders.total} slots"
        told += f", {ladders.waiting} wait" if ladders.waiting else ""
    if not origin.irs.connected:
        return "warn", f"no IRS for {origin.irs.for_s:.0f} s, {told}"
    return ("ok" if origin.state == "up" else "warn"), f"{origin.state}, {told}"


def _link_rows(status: Status) -> list[Row]:
    """Links from PoPs to origins; at an origin without PoPs here, those of its PoPs."""
    rows = []
    for pop in status.pops:
        states = {origin.origin: origin.state for origin in pop.origins}
        rows += [_link_row(pop, link, states.get(link.origin, "")) for link in pop.links]
    here = {pop.pop for pop in status.pops}
    for origin in status.origins:
        for peer in origin.pops:
            if peer.pop in here:
                continue
            rows.append(
                _make_link_row(
                    f"{peer.pop} → {origin.origin}",
                    "ok",
                    f"{peer.sessions} sessions",
                    streams=str(peer.streams),
                    out=_mbps(peer.in_bps),
                    back=_mbps(peer.out_bps),
                )
            )
    return rows


def _link_row(pop: PopSeen, link: LinkSeen, origin_state: str) -> Row:
    up = len(link.sessions)
    state, word = "ok", "up"
    if not up:
        state, word = "bad", "down"
    elif up < link.sessions_wanted:
        state, word = "warn", f"{up} of {link.sessions_wanted}"
    elif origin_state not in ("up", "probation", ""):
        state, word = ("bad" if origin_state == "down" else "warn"), f"origin {origin_state}"
    row = _make_link_row(
        f"{pop.pop} → {link.origin}",
        state,
        word,
        streams=str(link.forwardings),
        out=_mbps(link.out_bps),
        back=_mbps(link.in_bps),
        rtt="" if link.rtt_ms is None else f"{link.rtt_ms:.1f} ms",
    )
    return row | {
        "feeds>": Text(str(link.subscriptions)),
        "skipped>": Text(str(link.units_skipped), "yellow" if link.units_skipped else ""),
        "reconnects>": Text(str(link.reconnects)),
    }


def _make_link_row(
    name: str, state: str, word: str, *, streams: str, out: str, back: str, rtt: str = ""
) -> Row:
    return {
        "": _mark(state),
        "link": Text(name, "bold"),
        "state": Text(word, "" if state == "ok" else MARKS[state][1]),
        "RTT>": Text(rtt),
        "streams>": Text(streams),
        "feeds>": Text(""),
        "out Mbps>": Text(out),
        "in Mbps>": Text(back),
        "skipped>": Text(""),
        "reconnects>": Text(""),
    }


def _streams(status: Status, width: int, rows: int) -> list[RenderableType]:
    """The streams that fit, what is wrong with them, and how many more there are."""
    shown = status.streams[:rows]
    parts: list[RenderableType] = []
    if shown:
        hidden = {"ring": WIDE_COLUMNS, "60 s": MIDDLE_COLUMNS, "picture": MIDDLE_COLUMNS}
        is_made = any(stream.ladder is not None for stream in shown)
        hidden["ladder"] = WIDE_COLUMNS if is_made else width + 1
        if all(stream.health.jitter_ms is None for stream in shown):
            hidden["jitter"] = width + 1
        parts.append(_table([_stream_row(stream) for stream in shown], width, hidden=hidden))
        parts += _warnings(shown, width)
    else:
        found = "no live streams" if not status.totals.streams else "no live stream matches"
        parts.append(Text(found, "dim"))
    left = status.streams_matching - len(shown)
    if left > 0:
        parts.append(Text(f"and {left} more; --filter finds them", "dim"))
    return parts


def _stream_row(stream: StreamSeen) -> Row:
    health = stream.health
    video = next((track for track in stream.tracks if track.kind == "video"), None)
    wanted = video.fps if video is not None else None
    is_slow = wanted is not None and health.fps is not None and health.fps < FPS_SHARE * wanted
    is_long = health.gop_s is not None and health.gop_s > GOP_S_MAX
    pop = f"{stream.route.pop} → " if stream.route is not None else ""
    known = stream.state != "elsewhere"
    return {
        "": _mark(stream_state(stream)),
        "channel": Text(stream.channel, "bold"),
        "route": Text(f"{pop}{stream.origin or 'nowhere'}"),
        "picture": Text("" if video is None else f"{video.width}x{video.height} {video.codec}"),
        "Mbps>": Text(f"{health.bitrate_bps_2s / 1e6:.2f}" if known else ""),
        "60 s": Text(spark(stream.bitrate_kbps_history, floor=100.0), "cyan"),
        "fps>": Text("" if health.fps is None else f"{health.fps:.1f}", "yellow" * is_slow),
        "GOP>": Text("" if health.gop_s is None else f"{health.gop_s:.1f} s", "yellow" * is_long),
        "jitter>": Text("" if health.jitter_ms is None else f"{health.jitter_ms:.0f} ms"),
        "viewers>": Text(str(stream.viewers)),
        "ladder": _ladder_word(stream),
        "ring>": Text(f"{stream.ring_s:.1f} s" if known else ""),
        "live>": Text(
            format_duration(stream.live_s)
            if stream.waiting_s is None
            else f"waits {format_duration(stream.waiting_s)}",
            "" if stream.waiting_s is None else "yellow",
        ),
    }


def _ladder_word(stream: StreamSeen) -> Text:
    """How many rungs are made, or why none is."""
    ladder = stream.ladder
    if ladder is None:
        return Text("")
    style = "yellow" if ladder.is_lacking else ""
    if ladder.state != "running":
        return Text(ladder.state, style)
    made, wanted = len(ladder.rungs), len(ladder.rungs) + len(ladder.shed)
    return Text(f"{made} of {wanted} rungs" if made < wanted else f"{made} rungs", style)


def _warnings(streams: Sequence[StreamSeen], width: int) -> list[Text]:
    """What is wrong with the streams shown, a line each."""
    lines = []
    for stream in streams:
        for warning in stream.health.warnings:
            mark, style = MARKS["bad" if warning.severity == "error" else "warn"]
            line = Text.assemble((f"{mark} ", style), (stream.channel, "bold"), f": {warning.text}")
            lines.append(_line(line, width))
        if stream.ladder is not None and stream.ladder.is_lacking:
            mark, style = MARKS["warn"]
            text = f": {stream.ladder.text}"
            line = Text.assemble((f"{mark} ", style), (stream.channel, "bold"), text)
            lines.append(_line(line, width))
    more = len(lines) - WARNINGS_MAX
    if more > 0:
        lines[WARNINGS_MAX:] = [Text(f"and {more} more warnings", "yellow")]
    return lines


def stream_state(stream: StreamSeen) -> str:
    """Return "ok", "warn" or "bad"."""
    severities = {warning.severity for warning in stream.health.warnings}
    if stream.state == "silent" or "error" in severities:
        return "bad"
    return "warn" if stream.state == "waiting" or "warning" in severities else "ok"


def spark(values: Sequence[float], *, floor: float) -> str:
    """The newest values as bars; `floor` is the least that the highest bar stands for."""
    shown = values[-SPARK_COLUMNS:]
    high = max([floor, *shown])
    return "".join(BARS[min(7, max(0, int(8 * value / high)))] for value in shown)


def _table(rows: Sequence[Row], width: int, *, hidden: dict[str, int]) -> Table:
    """A table of rows alike; a column's name that ends in ">" has it to the right.

    `hidden`: the width below which a column is left out.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1 if width < MIDDLE_COLUMNS else 2, 0, 0))
    names = [name for name in rows[0] if width >= hidden.get(name.rstrip(">"), 0)]
    for name in names:
        table.add_column(
            name.rstrip(">"),
            header_style="dim",
            justify="right" if name.endswith(">") else "left",
            no_wrap=True,
            overflow="ellipsis",
            max_width=max(16, width // 4) if name in ("channel", "route") else None,
        )
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def _line(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _pops(count: int) -> str:
    return "1 PoP" if count == 1 else f"{count} PoPs"


def _mark(state: str) -> Text:
    mark, style = MARKS[state]
    return Text(mark, style)


def _mbps(bps: float) -> str:
    """Three digits."""
    mbps = bps / 1e6
    digits = 2 if mbps < 9.995 else 1 if mbps < 99.95 else 0  # noqa: PLR2004 - as they are rounded
    return f"{mbps:.{digits}f}"


def _lag_style(lag_ms: float) -> str:
    return "bold red" if lag_ms >= LAG_MS_SHED else "yellow" if lag_ms >= LAG_MS_HIGH else ""
