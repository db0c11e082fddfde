"""The figures of an audit as a table for terminals, and in two sentences; computed without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from robustree.auditing.report.text import subject_name


def figures_table(figures: Mapping[str, Any]) -> Table:
    """Clean and robust accuracy of every model at every level, their means, and how often all levels hold at once."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", caption_justify="left")
    table.add_column("level", no_wrap=True)
    subjects = figures["models"]
    for subject in subjects:
        table.add_column(subject_name(subject, figures).replace(" (", "\n("), justify="right", no_wrap=True)
    for number, cut in enumerate(figures["cuts"]):
        readings = [subject["cuts"][number]["readouts"]["direct"] for subject in subjects]
        last = number == len(figures["cuts"]) - 1
        cells = _cells([(reading["clean"], reading["worst"]) for reading in readings])
        table.add_row(cut["label"], *cells, end_section=last)
    means = [subject["means"]["direct"]["levels"] for subject in subjects]
    table.add_row("mean of levels", *_cells([(mean["clean"], mean["worst"]) for mean in means]))
    balanced = [mean["balanced"] for mean in means]
    table.add_row("mean, balanced", *_cells([(mean["clean"], mean["worst"]) for mean in balanced]))
    every = [subject["any_level"]["levels"] for subject in subjects]
    table.add_row("right at every level", *_cells([(rate["clean"], rate["worst"]) for rate in every]))
    table.caption = Text(f"clean → robust, % of {figures['images']} images; robust: right under every attack", "dim")
    return table


def _cells(pairs: list[tuple[Mapping[str, float] | None, Mapping[str, float] | None]]) -> list[Text]:
    """One cell a model; the best robust figure of the row is bold."""
    worst = [robust["value"] for _, robust in pairs if robust]
    best = max(worst) if len(worst) > 1 else None
    cells = []
    for clean, robust in pairs:
        mark = "bold cyan" if robust and robust["value"] == best and best else ""
        cells.append(Text.assemble((f"{_percent(clean)} → ", "dim"), (f"{_percent(robust)}", mark)))
    return cells


def _percent(figure: Mapping[str, float] | None) -> str:
    return "–" if figure is None else f"{100 * figure['value']:.1f}"


def pairs_table(figures: Mapping[str, Any]) -> Table | None:
    """The strongest model against each other one, level by level: images that only one of the two keeps, and McNemar's
    exact p after Holm's correction over the levels; None where there is nothing to compare."""
    comparisons = figures["comparisons"]
    if not comparisons:
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", caption_justify="left")
    table.add_column(f"{subject_name(comparisons[0]['a'], figures)} :", no_wrap=True)
    for pair in comparisons:
        table.add_column(subject_name(pair["b"], figures).replace(" (", "\n("), justify="right", no_wrap=True)
    for number, cut in enumerate(figures["cuts"]):
        last = number == len(figures["cuts"]) - 1
        table.add_row(cut["label"], *(_discordant(pair["cuts"][number]) for pair in comparisons), end_section=last)
    gaps = [pair["difference"] for pair in comparisons]
    means = [Text(f"{_points(gap['value'])} ({_points(gap['low'])} to {_points(gap['high'])})") for gap in gaps]
    for text, pair in zip(means, comparisons, strict=True):
        text.stylize("bold cyan" if pair["clear"] else "")
    table.add_row("robust, mean of levels", *means)
    said = "images that only the first : only the other keeps, under the attacks that both met; p: McNemar and Holm"
    table.caption = Text(said, "dim")
    return table


def _discordant(cut: Mapping[str, Any]) -> Text:
    p = "p < 0.001" if cut["p_holm"] < 0.001 else f"p = {cut['p_holm']:.3f}"
    mark = "bold cyan" if cut["p_holm"] < 0.05 else ""
    return Text.assemble((f"{cut['only_a']} : {cut['only_b']}", mark), (f"  {p}", "dim"))


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


STYLES = {"fail": "bold red", "flag": "yellow", "not applicable": "dim"}


def check_lines(checks: Sequence[Mapping[str, Any]]) -> list[Text]:
    """One line for each check that failed or asks for a look, one for those that did not apply, and a summary."""
    lines = [
        Text.assemble(
            (f"{check['status']:<7}", STYLES[status]),
            f"{check['id']} {check['title']}",
            (f"  {_about(check)}", "dim"),
        )
        for status in ("fail", "flag")
        for check in checks
        if check["status"] == status
    ]
    skipped = Counter(check["id"] for check in checks if check["status"] == "not applicable")
    if skipped:
        names = ", ".join(name if times == 1 else f"{name} ×{times}" for name, times in skipped.items())
        lines.append(Text(f"not applicable: {names}", STYLES["not applicable"]))
    count = Counter(check["status"] for check in checks)
    summary = f"{count['pass']} passed, {count['flag']} to look at, {count['fail']} failed"
    return [*lines, Text.assemble("checks  ", (summary, STYLES["fail"] if count["fail"] else ""))]


def _about(check: Mapping[str, Any]) -> str:
    figure = check["figure"]
    shown = f"{figure:.4g}" if isinstance(figure, float) else str(figure or "")
    return " ".join(part for part in (check["subject"], shown) if part)


def reading(figures: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """Two sentences: what each model keeps under attack, and whether the two models of `comparison` differ.

    Each model counts with the head that keeps more; `comparison` is what `metrics.compare` returned.
    """
    kept: dict[str, tuple[float, float]] = {}
    for subject in figures["models"]:
        mean = subject["means"]["direct"]["levels"]
        found = mean["worst"]["value"], mean["clean"]["value"]
        kept[subject["model"]] = max(found, kept.get(subject["model"], (-1.0, 0.0)))
    parts = [
        f"{model} {100 * worst:.1f}\N{NO-BREAK SPACE}% ({100 * clean:.1f}\N{NO-BREAK SPACE}% clean)"
        for model, (worst, clean) in kept.items()
    ]
    first = f"Of all decisions, averaged over the levels, right under every attack: {', '.join(parts)}."
    gap = comparison["difference"]
    a, b = comparison["a"]["model"], comparison["b"]["model"]
    low, high = 100 * gap["low"], 100 * gap["high"]
    interval = f"{100 * gap['value']:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
    if not comparison["clear"]:
        second = f"Between {a} and {b} these {figures['images']} images show no clear difference ({interval})."
    else:
        verb = "more" if gap["value"] > 0 else "less"
        second = f"{a} keeps {verb} than {b}, by more than the images' chance ({interval})."
    return f"{first} {second}"
