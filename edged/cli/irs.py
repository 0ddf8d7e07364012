"""`edged irs`: which of several is active, what it kept, and its policies beside a network."""

import typer

from edged.cli.irs_forecast import forecast_command
from edged.cli.irs_replay import replay
from edged.cli.irs_standby import irs_standby
from edged.cli.irs_status import irs_status
from edged.cli.simulate import simulate

irs_app = typer.Typer(
    help="IRS: which of several is active, what it kept, and its policies beside a network.",
    no_args_is_help=True,
)
irs_app.command("status")(irs_status)
irs_app.command("standby")(irs_standby)
irs_app.command("simulate")(simulate)
irs_app.command("replay")(replay)
irs_app.command("forecast")(forecast_command)
