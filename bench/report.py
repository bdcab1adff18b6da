"""Gathers what the benchmarks wrote into one page: `python bench/report.py` reads bench/results/*.json.

A file is known by the benchmark it names, else by its own name. Tables of benchmarks that this page does not know
are written as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from bench import plots, results
from bench.figures import caution
from bench.report_sections import SECTIONS, anything, plain
from bench.report_summary import summary
from bench.results import Record
from ecmf.errors import DataError, EcmfError

HERE = Path(__file__).parent
ORDER = (
    "latency",
    "annotation",
    "throughput",
    "accuracy",
    "live_words",
    "transcription",
    "enrichment",
    "engines",
    "soak",
)
"""Sections in this order, others behind them."""
TITLES = {
    "latency": "Latency of the live pipeline",
    "annotation": "Annotation, as fast as it goes",
    "throughput": "Cameras with sound on one machine",
    "accuracy": "The face branch beside other packages",
    "transcription": "Words",
    "live_words": "Words in the live program",
    "enrichment": "What a language model adds to the text",
    "engines": "Engines",
    "soak": "Running on and on",
}
HEAD = """# Measured

Written by `python bench/report.py` from the files in `{folder}`; every number comes from there. How each was measured
stands above it, and at the head of its script in `bench/`. An empty cell was not measured.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=HERE / "results")
    parser.add_argument("--out", type=Path, default=HERE / "REPORT.md", help="(bench/REPORT.md)")
    options = parser.parse_args()
    try:
        records = gather(options.folder)
        figures = options.out.parent / "plots"
        drawn = {name: draw(record, figures / f"{name}.png") for name, record in records.items()}
        page = render(
            records, {name: f"plots/{name}.png" for name, done in drawn.items() if done}, options.folder
        )
        options.out.write_text(page, "utf-8")
    except EcmfError as error:
        print(f"report: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out}: {', '.join(records)}")
    return 0


def gather(folder: Path) -> dict[str, Record]:
    """File name without its ending -> record, in the order of the page. Raises DataError when there is none."""
    records = {path.stem: results.load(path) for path in sorted(folder.glob("*.json"))}
    if not records:
        raise DataError(
            f"{folder} holds no JSON file; run a benchmark with --json {folder}/latency.json first"
        )

    def place(name: str) -> tuple[int, str]:
        kind = records[name]["benchmark"]
        return (ORDER.index(kind) if kind in ORDER else len(ORDER), name)

    return {name: records[name] for name in sorted(records, key=place)}


def draw(record: Record, path: Path) -> bool:
    """Plot ``record`` where its benchmark has a plot."""
    plot = plots.PLOTS.get(record["benchmark"])
    if plot is not None:
        plot(record, path)
    return plot is not None


def busy(record: Record) -> list[str]:
    """A warning where the machine was not quiet."""
    rows = [record, *(row for row in record.get("rows", []) if isinstance(row, dict))]
    warning = caution(max(float(row.get("other_cores", 0.0)) for row in rows))
    return [f"**{warning[0].upper()}{warning[1:]}.**", ""] if warning else []


def render(records: Mapping[str, Record], pictures: Mapping[str, str], folder: Path) -> str:
    """The page as Markdown. ``pictures``: plots by name, relative to the page."""
    shown = folder.relative_to(HERE.parent) if folder.is_relative_to(HERE.parent) else Path(folder.name)
    lines = [HEAD.format(folder=shown)]
    headings = {name: heading(name, record) for name, record in records.items()}
    lines += summary(records, headings)
    for name, record in records.items():
        kind, title = record["benchmark"], headings[name]
        lines += [f"## {title}", "", circumstances(record), ""]
        lines += busy(record)
        lines += SECTIONS.get(kind, anything)(record)
        if name in pictures:
            lines += [f"![{title}]({pictures[name]})", ""]
    return "\n".join(lines).rstrip() + "\n"


def heading(name: str, record: Record) -> str:
    """Of a record's section; with the file's name where that is not the benchmark's."""
    kind: str = record["benchmark"]
    title = TITLES.get(kind, kind)
    return title if name == kind else f"{title}: {name}"


def circumstances(record: Record) -> str:
    """Machine, versions, commit and options, in a sentence."""
    machine = record.get("machine", {})
    told = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB" if machine else "",
        f"Python {machine['python']}" if machine else "",
        *(f"{name} {version}" for name, version in record.get("versions", {}).items() if name != "commit"),
        f"commit {record.get('commit') or record.get('versions', {}).get('commit', 'unknown')}",
        record.get("date", ""),
    ]
    options = ", ".join(
        f"{k} {plain(v)}" for k, v in record.get("options", {}).items() if v not in (None, [])
    )
    return "; ".join(part for part in told if part) + (f". Options: {options}." if options else ".")


if __name__ == "__main__":
    sys.exit(main())
