"""`edged links`: the backbone's links, as IRS knows them."""

from rich.text import Text

from edged.cli.asking import ConfigOption, JsonOption, ShardOption, SocketOption, Where, ask_all
from edged.cli.output import console, print_json, print_table
from edged.policy.well import LinkStatus

STATE_STYLES = {"up": "green", "cut": "bold red"}
COLUMNS = (
    *("link", "ends", "state", "Mbps", "use there", "use back"),
    *("RTT", "loss", "price", "why"),
)


def links(
    *,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the backbone's links at IRS: state, use each way, round trip, loss and price.

    One over which streams were shed is closed to new ones of their class and those below.
    """
    asked = ask_all("links", {}, Where(config=config, socket=socket, shard=shard))
    found = asked.lines(LinkStatus)
    if as_json:
        print_json(found)
    elif not found:
        console.print("no links are configured: see [[irs.links]] in irs.toml", markup=False)
    else:
        print_table("", COLUMNS, [_row(link) for link in found])
    asked.finish()


def _row(link: LinkStatus) -> tuple[str | Text, ...]:
    there, back = (
        f"{use:.1%}"
        + (f" ({outside:.0f} Mbps of others)" if outside else "")
        + (f", closed to {closed} and below" if closed else "")
        for use, outside, closed in zip(
            link.utilisation, link.outside_mbps, link.closed, strict=True
        )
    )
    others = [name for name in link.told_as if name != link.link]
    told = f"with {', '.join(others)}" if others else ""
    rtt = f"{link.rtt_ms:.1f} ms" if link.rtt_ms is not None else ""
    return (
        Text(link.link, "bold"),
        " to ".join(link.ends),
        Text(link.state, STATE_STYLES.get(link.state, "yellow")),
        f"{link.mbps:.0f}",
        there,
        back,
        f"{rtt} {told}".strip(),
        f"{link.loss:.2%}" if link.loss is not None else "",
        f"{link.price_ms:.0f} ms" if link.price_ms else "",
        link.why,
    )
