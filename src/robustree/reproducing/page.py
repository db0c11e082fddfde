"""A table with its published and its own figures, as JSON and as Markdown; the two never share a column."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustree.auditing.protocols import published_rows
from robustree.reproducing.jobs import Cell, Job, Prices, lacks_of, needs_of
from robustree.reproducing.place import GB, Place
from robustree.reproducing.scales import PAPER, Scale
from robustree.reproducing.tables import PaperTable, Row
from robustree.writing import write_whole

PUBLISHED = (
    "OpenAI's CLIP (ViT-B/32 unless a row says otherwise), hardened on ImageNet; % right on average over 15 sets"
)


def content_of(
    table: PaperTable,
    place: Place,
    jobs: Sequence[Job],
    priced: Prices | None = None,
    refused: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Everything that is printed. `refused`: by candidate, why it was not begun although all was here."""
    scale = place.scale
    by_name = {job.candidate.name: job for job in jobs}
    titles = ["clean", *(PAPER.title(evaluation) for evaluation in table.evaluations)]
    sources: list[str] = []
    rows = [_row(row, titles, sources, table, scale, by_name, refused or {}) for row in table.rows]
    return {
        "table": table.name,
        "about": table.about,
        "published": {"titles": titles, "of": PUBLISHED, "sources": sources, "by_data_set": _by_data_set(table)},
        "own": {"titles": _own_titles(table, scale), "of": own_protocol(table, scale), "scale": scale.name},
        "rows": rows,
        "needs": {"about": priced.about if priced else None, "models": needs_of(jobs, place, priced)},
        "lacks": lacks_of(jobs),
        "unknown": [*table.unknown, *scale.assumed],
    }


def _by_data_set(table: PaperTable) -> list[str]:
    """What was published about single data sets, a line for each method and attack."""
    rows = published_rows(table.by_data_set) if table.by_data_set else ()
    return [
        f"{row.method}, {row.attack}: {', '.join(f'{name} {value:.2f}' for name, value in row.figures.items())} "
        f"({row.source})"
        for row in rows
    ]


def own_protocol(table: PaperTable, scale: Scale) -> str:
    """In one sentence, what this scale's own figures are of."""
    base, sets = scale.base, scale.data_sets
    used = {candidate.backbone for candidate in table.candidates}
    models = ", ".join(where for backbone, where in scale.models.items() if backbone in used)
    images = "all images" if scale.images is None else f"at most {scale.images:,} images each"
    audited = ", ".join(sets) if len(sets) <= 3 else f"{len(sets)} data sets"
    return (
        f"{models}; hardened for {base.steps:,} steps of {base.batch_size} images of {scale.training} at eps "
        f"{255 * base.threat.eps:g}/255; audited on {audited} ({images}); seed {base.seed}; {scale.about}"
    )


def _own_titles(table: PaperTable, scale: Scale) -> list[str]:
    titles = ["clean", *(scale.title(evaluation) for evaluation in table.evaluations)]
    for evaluation in table.evaluations:
        if evaluation.attack in scale.levels:
            title = scale.title(evaluation)
            titles += [*(["all levels, clean"] if evaluation.factor == 1 else []), f"all levels, {title}"]
    return titles


def _row(
    row: Row,
    titles: Sequence[str],
    sources: list[str],
    table: PaperTable,
    scale: Scale,
    jobs: Mapping[str, Job],
    refused: Mapping[str, str],
) -> dict[str, Any]:
    published = [row.figures(title) for title in titles]
    used = list(dict.fromkeys(found.source for cell in published for found in cell))
    sources += [source for source in used if source not in sources]
    job = jobs[row.candidate.name] if row.candidate else None
    return {
        "label": row.label,
        "published": [[found.figures["average"] for found in cell] for cell in published],
        "sources": [sources.index(source) + 1 for source in used],
        "own": _own_cells(table, scale, job) if job else [None] * len(_own_titles(table, scale)),
        "state": job.state if job else "quoted only",
        "refused": refused.get(job.candidate.name, "") if job and job.missing else "",
        "note": row.note,
    }


def _own_cells(table: PaperTable, scale: Scale, job: Job) -> list[dict[str, Any] | None]:
    """The cells in the order of `_own_titles`."""
    by_evaluation = [[cell for cell in job.cells if cell.evaluation == one] for one in table.evaluations]
    found = [_mean(by_evaluation[0], ("clean",)), *(_mean(cells, ("robust",)) for cells in by_evaluation)]
    for evaluation, cells in zip(table.evaluations, by_evaluation, strict=True):
        if evaluation.attack in scale.levels:
            first = [_mean(cells, ("levels", "clean"))] if evaluation.factor == 1 else []
            found += [*first, _mean(cells, ("levels", "robust"))]
    return found


def _mean(cells: Sequence[Cell], where: tuple[str, ...]) -> dict[str, Any] | None:
    """The mean over the data sets that have figures; of a single one also its interval."""
    by_set: dict[str, Any] = {}
    for cell in cells:
        if cell.figures is not None:
            value: Any = cell.figures
            for key in where:
                value = value[key]
            by_set[cell.data_set] = {"value": value} if isinstance(value, float) else value
    if not by_set:
        return None
    mean = {"value": statistics.mean(one["value"] for one in by_set.values()), "sets": len(by_set), "of": len(cells)}
    single = next(iter(by_set.values())) if len(by_set) == 1 else {}
    return mean | {key: single[key] for key in ("low", "high") if key in single} | {"by_set": by_set}


def shown(cell: Mapping[str, Any] | None, *, interval: bool = False) -> str:
    """An own figure in per cent, with its interval or the number of data sets where that is not all."""
    if cell is None:
        return "–"
    text = f"{100 * cell['value']:.1f}"
    if interval and "low" in cell:
        text += f" ({100 * cell['low']:.1f} to {100 * cell['high']:.1f})"
    return text if cell["sets"] == cell["of"] else f"{text} [{cell['sets']} of {cell['of']} sets]"


def state_of(row: Mapping[str, Any]) -> str:
    """What became of a row, or why it was not begun where all was here."""
    return f"not begun: {row['refused']}" if row["refused"] else row["state"]


def published(values: Sequence[float]) -> str:
    """Published figures of one cell, as they were printed; several where it is not known which is the right one."""
    return " or ".join(f"{value:.2f}" for value in values) or "–"


def markdown(content: Mapping[str, Any]) -> str:
    """The table as a page: published figures, own figures, and what is not known."""
    lines = [f"# {content['table']}: {content['about']}", "", "## Published", "", f"{content['published']['of']}.", ""]
    titles = ["row", *content["published"]["titles"], "source", "note"]
    lines += _grid(
        titles,
        [
            [
                row["label"],
                *map(published, row["published"]),
                " ".join(f"[{number}]" for number in row["sources"]) or "not published",
                row["note"],
            ]
            for row in content["rows"]
        ],
    )
    lines += ["", *(f"[{number}] {source}  " for number, source in enumerate(content["published"]["sources"], 1))]
    lines += [f"{line}  " for line in content["published"]["by_data_set"]]
    lines += ["", f"## Here, scale {content['own']['scale']}", "", f"{content['own']['of']}.", ""]
    lines += _grid(
        ["row", *content["own"]["titles"], "state"],
        [
            [row["label"], *(shown(cell, interval=True) for cell in row["own"]), state_of(row)]
            for row in content["rows"]
        ],
    )
    lines += ["", "In brackets: 95 % intervals over images, of one seed."]
    unfinished = [need for need in content["needs"]["models"] if need["done"] < need["cells"]]
    if unfinished:
        lines += ["", "## What is left to do", "", *_needs(unfinished, content["needs"]["about"])]
    if content["lacks"]:
        lines += ["", "Not here:", "", *(f"- {lack}" for lack in content["lacks"])]
    lines += ["", "## Not published, and what is taken here", "", *(f"- {line}" for line in content["unknown"])]
    return "\n".join(lines) + "\n"


def needs_cells(need: Mapping[str, Any]) -> list[str]:
    """FLOPs, hours of hardening and of audits, memory, disk and finished cells of one model."""
    done = f"{need['done']} of {need['cells']}"
    if need["done"] == need["cells"]:
        return [*["–"] * 5, done]
    if "flops" not in need:
        return [*["not known"] * 5, done]
    hours = (duration(need["hours_of_hardening"]), duration(need["hours_of_audits"]))
    sizes = (f"{need[name] / GB:.1f} GB" for name in ("memory", "disk"))
    return [f"{need['flops']:.1e}".replace("e+", "e"), *hours, *sizes, done]


NEEDS = ("FLOPs", "harden", "audits", "memory", "disk", "cells done")


def duration(hours: float) -> str:
    """Hours in a unit that fits."""
    if not hours:
        return "–"
    if hours >= 1:
        return f"{hours:,.0f} h"
    return f"{hours * 60:,.0f} min" if hours * 60 >= 1 else f"{hours * 3600:,.0f} s"


def needs_rows(needs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of every model, and of all together: memory is that of the largest."""
    rows = [[need["model"], *needs_cells(need)] for need in needs]
    left = [need for need in needs if "flops" in need and need["done"] < need["cells"]]
    if len(left) < 2:
        return rows
    added = {
        name: sum(need[name] for need in left) for name in ("flops", "disk", "hours_of_hardening", "hours_of_audits")
    }
    counts = {name: sum(need[name] for need in needs) for name in ("done", "cells")}
    together = added | counts | {"memory": max(need["memory"] for need in left)}
    return [*rows, ["together", *needs_cells(together)]]


def _needs(needs: Sequence[Mapping[str, Any]], about: str | None) -> list[str]:
    grid = _grid(["model", *NEEDS], needs_rows(needs))
    return [*grid, "", f"Times of one device, at most: {about}."] if about else grid


def _grid(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows)]


def write_page(directory: Path, content: Mapping[str, Any]) -> Path:
    """Write TABLE.json and TABLE.md; returns the latter."""
    write_whole(directory / f"{content['table']}.json", json.dumps(content, indent=1) + "\n")
    path = directory / f"{content['table']}.md"
    write_whole(path, markdown(content))
    return path
