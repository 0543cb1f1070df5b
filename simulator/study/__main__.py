"""`python -m simulator.study --out FOLDER`: every table and figure of the relay-scaling study, from one seed."""

import sys
from pathlib import Path
from time import perf_counter

import click
import msgspec

from simulator.study.parameters import DESIGNS, PRICES, Parameters


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where results go.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Everything follows from it.")
@click.option("--quick", is_flag=True, help="A few small runs, to see that it works.")
@click.option(
    "--nodes", type=click.IntRange(min=2), default=None, help="Only print what a relay for so many must bear."
)
@click.option("--parameters", "parameters_file", type=click.Path(dir_okay=False, path_type=Path), help="TOML or JSON.")
def main(*, out: Path, seed: int, quick: bool, nodes: int | None, parameters_file: Path | None) -> None:
    """Predict what a relay carries and costs, from a hundred nodes to a hundred million."""
    from simulator.study import figures, runs, tables

    parameters = _parameters(parameters_file)
    began = perf_counter()
    plan = runs.QUICK if quick else runs.FULL
    if nodes is not None:
        plan = plan._replace(events=(), nodes=(nodes,))
    results = runs.carry_out(plan, parameters, seed=seed, progress=lambda line: click.echo(line, err=True))
    wall = perf_counter() - began
    out.mkdir(parents=True, exist_ok=True)
    text = tables.markdown(results, parameters) if nodes is None else tables.sizing(results, parameters)
    (out / "tables.md").write_text(text, encoding="utf-8")
    told = {
        "seed": seed,
        "wall_seconds": round(wall, 1),
        "parameters": msgspec.to_builtins(parameters),
        "prices": msgspec.to_builtins(PRICES),
        "designs": msgspec.to_builtins(DESIGNS),
        **tables.as_json(results),
    }
    (out / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
    if nodes is None:
        for path in figures.draw(results, parameters, out):
            click.echo(f"wrote {path}", err=True)
    click.echo(text)
    click.echo(f"run time: {perf_counter() - began:.0f} s", err=nodes is not None)


def _parameters(path: Path | None) -> Parameters:
    if path is None:
        return Parameters()
    try:
        decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
        return decode(path.read_bytes(), type=Parameters)
    except (OSError, ValueError) as error:
        click.echo(f"{path}: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
