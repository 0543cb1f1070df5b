"""`teale-sim list`: the scenarios that can be run by name."""

import click

from simulator import scenario as scenarios
from simulator.cli.options import json_option
from simulator.cli.output import Output


@click.command("list")
@json_option
def list_scenarios(*, as_json: bool) -> None:
    """List the scenarios that can be run by name."""
    found = [(name, scenarios.load(name)) for name in scenarios.scenario_names()]
    out = Output(as_json=as_json)
    if as_json:
        out.document(
            [
                {"name": name, "summary": each.summary, "kind": "program" if each.spec is None else "description"}
                for name, each in found
            ]
        )
        return
    rows = [(name, "program" if each.spec is None else "description", each.summary) for name, each in found]
    out.table(("scenario", "kind", "what it shows"), rows)
