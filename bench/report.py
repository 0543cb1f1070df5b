"""Writes the tables of `docs/reference/benchmarks.md` from what the last full runs have saved.

The words around the tables are written by hand; what stands between the two marks is written by this.
"""

import sys
from typing import Any, Final

import msgspec

from bench._harness import HERE, RESULTS, number

PAGE: Final = HERE.parent / "docs" / "reference" / "benchmarks.md"
BEGIN: Final = "<!-- begin: written by python -m bench.report -->"
END: Final = "<!-- end -->"
ORDER: Final = ("lan_link", "quic", "relay", "routing", "api", "simulator")
VERDICTS: Final = {True: "met", False: "**missed**", None: ""}


def main() -> None:
    """Put the tables into the page."""
    page = PAGE.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{PAGE} has no place for the tables: {BEGIN} … {END}")
    records = [msgspec.json.decode((RESULTS / f"{name}.json").read_bytes()) for name in ORDER if _is_there(name)]
    if not records:
        sys.exit("nothing has been measured: run `python -m bench` first")
    PAGE.write_text(f"{before}{BEGIN}\n\n{_machine(records)}\n{''.join(map(_section, records))}{END}{after}")


def _is_there(name: str) -> bool:
    return (RESULTS / f"{name}.json").is_file()


def _machine(records: list[dict[str, Any]]) -> str:
    machine = records[0]["machine"]
    versions: dict[str, str] = {}
    for record in records:
        versions |= record["versions"]
    shown = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    dates = sorted({record["machine"]["date"][:10] for record in records})
    return (
        f"Measured {' and '.join(dates)} on {machine['cores']} cores of {_cell(machine['cpu'])}, "
        f"Linux {machine['kernel']}.\nVersions: {shown}.\n"
    )


def _section(record: dict[str, Any]) -> str:
    before, after = record["load_average_before"][0], record["load_average_after"][0]
    lines = [
        f"\n### {record['benchmark']}\n",
        f"{record['rounds']} rounds; load average {before:g} before, {after:g} after.\n",
        "| what | target | measured | ratio | | condition |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for claim in record["claims"]:
        cells = [claim["what"], claim["target"], claim["measured"], claim["ratio"], VERDICTS[claim["met"]]]
        lines.append("| " + " | ".join(map(_cell, [*cells, claim["condition"]])) + " |")
    lines += [
        f"\n#### All figures of {record['benchmark']}\n",
        "| figure | median | unit | spread |",
        "| --- | --- | --- | --- |",
    ]
    for name, figure in record["figures"].items():
        cells = [name, number(figure["median"]), figure["unit"], f"±{figure['spread'] / 2:.0%}"]
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    lines += [""]
    if record["notes"]:
        lines += [f"- {_cell(note)}" for note in dict.fromkeys(record["notes"])] + [""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
