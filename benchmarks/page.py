"""The tables and the plots of the drain, put into ``docs/benchmarks.md``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks import drain

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"
BEGIN, END = "<!-- begin: measured -->", "<!-- end: measured -->"
ROW, LEFT, WIDTH = 26, 330, 420

Medians = Mapping[str, Mapping[str, float]]


def write(found: Mapping[str, Medians], printed: Mapping[str, str]) -> None:
    """Write the tables into the page, one plot for each comparison, and what other programs have printed."""
    parts = []
    for number, (heading, medians) in enumerate(found.items(), start=1):
        name = f"benchmarks-{number}.svg"
        (DOCS / "images" / name).write_text(plot(heading, medians))
        parts.append(f"### {heading}\n\n![{heading}](images/{name})\n\n{table(medians, '50 ms' in heading)}")
    parts += [f"### {heading}\n\n```text\n{text.strip()}\n```\n" for heading, text in printed.items()]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{chr(10).join(parts)}\n{END}{after}")


def table(medians: Medians, far: bool) -> str:
    """Return the ratios of one comparison to django-storages' loop of saves, and what became of the goals."""
    base = medians[drain.LOOP]
    lines = ["| way | files a second: multiple of the loop's | CPU a file: of the loop's |", "|---|---|---|"]
    for name, median in medians.items():
        cpu = f"{median['cpu'] / base['cpu']:.2f}" if "cpu" in median else ""
        lines.append(f"| {name} | {median['ratio']:.2f} | {cpu} |")
    goals = [goal(medians, *each) for each in drain.GOALS[far] if {*each[:2]} <= medians.keys()]
    return "\n".join([*lines, "", *(f"- {text}" for text in goals), ""])


def goal(medians: Medians, ours: str, theirs: str, wanted: float) -> str:
    """Return one goal, and whether it was reached."""
    ratio = medians[ours]["ratio"] / medians[theirs]["ratio"]
    word = "reached" if ratio >= wanted else "not reached"
    return f"{ours}, against {theirs}: {ratio:.2f} x, to be {wanted:g} x: {word}"


def plot(heading: str, medians: Medians) -> str:
    """Return bars of the ratios to the loop as SVG."""
    ratios = {name: median["ratio"] for name, median in medians.items()}
    longest = max(ratios.values())
    bars = []
    for number, (name, ratio) in enumerate(ratios.items()):
        top, color = 40 + number * ROW, "#2b6cb0" if name.startswith("ours") else "#a0aec0"
        bars.append(
            f'<text x="{LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LEFT}" y="{top}" width="{max(ratio / longest * WIDTH, 1):.0f}" height="18" fill="{color}"/>'
            f'<text x="{LEFT + ratio / longest * WIDTH + 6:.0f}" y="{top + 14}">{ratio:.2f}</text>'
        )
    height = 50 + len(ratios) * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 70}" height="{height}" '
        'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="10" y="22" font-weight="bold">{escape(heading)}: files a second, loop of saves = 1</text>'
        f"{''.join(bars)}</svg>\n"
    )
