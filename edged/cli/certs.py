"""`edged cert`: the backbone's private CA and its hosts' certificates."""

import time
from pathlib import Path
from typing import Annotated

import typer

from edged.cli.output import console
from edged.errors import ConfigError
from edged.runtime.tls import Identity
from edged.tools.cert import AUTHORITY_DAYS, HOST_DAYS, make_authority, make_host_certificate

ROLES = ("pop", "origin", "irs")

cert_app = typer.Typer(help="Make the backbone's CA and host certificates.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--dir", help="Where the CA is, and certificates go.")]


@cert_app.command("ca")
def authority(
    network: Annotated[str, typer.Argument(help="The network's name, for people.")],
    *,
    folder: Folder = Path("certs"),
    days: Annotated[int, typer.Option(help="Days that the CA is valid.")] = AUTHORITY_DAYS,
) -> None:
    """Make the network's private CA. Keep its key off the hosts."""
    path = make_authority(folder, network, now=time.time(), days=days)
    console.print(
        f"CA certificate {path}; every host needs it. Its key stays here: {folder}/ca.key",
        markup=False,
    )


@cert_app.command("host")
def host(
    role: Annotated[str, typer.Argument(help="pop, origin or irs.")],
    name: Annotated[str, typer.Argument(help="The host's name in that role.")],
    *,
    folder: Folder = Path("certs"),
    days: Annotated[int, typer.Option(help="Days that the certificate is valid.")] = HOST_DAYS,
) -> None:
    """Make a host's certificate: it says who the host is, edged://ROLE/NAME, wherever it stands."""
    if role not in ROLES:
        raise ConfigError(f"role {role!r} is none of {', '.join(ROLES)}")
    identity = Identity(role, name)
    files = make_host_certificate(folder, identity, now=time.time(), days=days)
    lines = (
        f"[{identity.role}.tls]",
        f'ca = "{files.ca}"',
        f'certificate = "{files.certificate}"',
        f'key = "{files.key}"',
    )
    console.print("[dim]# Copy the three files to the host, and put this into its file:[/]")
    console.print("\n".join(lines), markup=False, soft_wrap=True)
