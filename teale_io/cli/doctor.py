"""`teale doctor`: looks at everything that a node needs, and says what to do about what it finds."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from teale_io.cli.app import App, json_option, pass_app
from teale_io.stun_servers import Server, parse_server


class ServerOption(click.ParamType[Server]):
    """A STUN server: HOST, HOST:PORT or [IPv6 address]:PORT."""

    name = "server"

    def convert(self, value: str | Server, param: click.Parameter | None, ctx: click.Context | None) -> Server:
        """Return the server."""
        if not isinstance(value, str):
            return value
        try:
            return parse_server(value)
        except ValueError:
            self.fail(f"{value!r} is not HOST or HOST:PORT.", param, ctx)


class PageOption(click.ParamType[str]):
    """A page over plain HTTP."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the URL."""
        try:
            parts = urlsplit(value)
            sound = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0 and parts.username is None
        except ValueError:
            sound = False
        if not sound or not value.isprintable() or " " in value:
            self.fail(f"{value!r} is not an http:// URL; behind https:// no portal can hide.", param, ctx)
        return value


@click.command()
@click.option("--skip-models", is_flag=True, help="Leave the models alone; to load a large one takes a while.")
@click.option("--netcheck", is_flag=True, help="Find out what NATs do to UDP; what follows asks for it too.")
@click.option(
    "--stun",
    "servers",
    multiple=True,
    type=ServerOption(),
    metavar="HOST[:PORT]",
    help="A STUN server to ask, beside the relay; may be given more than once.",
)
@click.option(
    "--port-mapping", is_flag=True, help="Have the gateway open a port (PCP, NAT-PMP, UPnP), and close it again."
)
@click.option("--lifetime", is_flag=True, help="Find out for how long NATs keep an unused port open; takes minutes.")
@click.option(
    "--portal-url",
    type=PageOption(),
    help="An empty http:// page by which to know captive portals; by default the relay's own, where it has no TLS.",
)
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), help="Keep in this file how the NATs behave (TOML)."
)
@json_option
@pass_app
def doctor(app: App, /, **wanted: Any) -> int:
    """Check configuration, key, ports, network, relay, clock, models, disk; say what to do about what is wrong.

    A running node is asked; otherwise things are tried out, and nothing is changed by it. Each finding is ok, warn or
    fail. The exit code is 1 if there is any fail, else 0.
    """
    # Only here, for it loads nearly all of a node, which other commands do without.
    from teale_io.cli.examination import examine

    return examine(app, **wanted)
