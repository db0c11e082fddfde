"""The report of an audit: one HTML page, one Markdown file and the figures, made from a folder of rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from robustree.auditing.metrics import table_figures
from robustree.auditing.report import charts, margin_curve, parts
from robustree.auditing.report.folder import read_audit, read_json
from robustree.auditing.report.gallery import read_gallery
from robustree.auditing.report.text import hero, notes, subject_name
from robustree.taxonomy.drawing import draw_tree
from robustree.taxonomy.forest import Forest
from robustree.writing import write_whole

HERE = Path(__file__).parent
STYLES = ("palette.css", "report.css")
NOT_PROTOCOL = ("spearman",)
CROWDED, NARROW, WIDE = 60, 540, 1040
"""Above so many leaves a tree takes the whole width of the page, in pixels; else two share it."""


@dataclass(frozen=True)
class Report:
    """The files that `write_report` wrote."""

    html: Path
    markdown: Path
    figures: Path


def write_report(directory: str | Path) -> Report:
    """Write report.html, report.md and figures.json into an audit's folder, from the files already there.

    Read: rows.jsonl, audit.json, forest.json, and where present gallery.json with the PNG files in gallery/,
    curves.json and checks.json.
    The page is one file without any outside reference. The same input gives the same bytes; each file is
    replaced in one step, so an interrupted call leaves the old one. Nothing is computed on a GPU.
    Raises ValueError for a missing or broken file, for rows that `metrics.figures` refuses and for a forest
    that is not the audit's.
    """
    folder = Path(directory)
    found = read_audit(folder)
    forest, audit = found.table.forest, found.header
    curves = parts.find_curves(folder, forest)
    audited = {f"{subject.model}/{subject.head}" for subject in found.table.subjects}  # an unfinished audit has fewer
    spearman = {name: value for name, value in audit.get("spearman", {}).items() if name in audited}
    measured = table_figures(found.table, spearman=spearman, stages=found.stages, curves=curves)
    measured["curves"] = parts.curve_figures(curves, measured["models"])
    measured["checks"] = parts.find_checks(folder)
    measured["audit"] = audit
    measured["rows_sha256"] = found.rows_sha256
    page = _context(measured, forest, folder)
    written = Report(folder / "report.html", folder / "report.md", folder / "figures.json")
    write_whole(written.html, environment(escape=True).get_template("report.html.jinja").render(page))
    write_whole(written.markdown, environment(escape=False).get_template("report.md.jinja").render(page))
    write_whole(written.figures, json.dumps(measured, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return written


def draw_transfer(directory: str | Path) -> str:
    """Return the transfer matrices of an audit, which its figures.json holds, as HTML.

    Raises ValueError for a missing or broken file.
    """
    path = Path(directory) / "figures.json"
    measured = read_json(path)
    if not isinstance(measured, dict) or not {"models", "cuts"} <= set(measured):
        raise ValueError(f"{path} holds no figures: write it again with {parts.rebuild_command(directory)}.")
    page = {
        "subjects": measured["models"],
        "cuts": measured["cuts"],
        "scale": Markup(charts.scale_legend()),
        "broken_colour": charts.broken_colour,
    }
    return environment(escape=True).get_template("transfer.html.jinja").render(page)


def environment(*, escape: bool) -> jinja2.Environment:
    """The templates of this folder with the filters that they use."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": charts.percent,
        "bare": charts.bare,
        "points": charts.points,
        "budget": budget,
        "norm": lambda norm: {"linf": "l∞", "l2": "l2"}.get(norm, norm),
        "named": subject_name,
        "plain": _plain,
        "cell": lambda text: str(text).replace("|", "\\|").replace("\n", " "),
    }
    return environment


def dress() -> dict[str, Markup]:
    """The style and the script that stand inside every page."""
    style = "".join((HERE / name).read_text(encoding="utf-8") for name in STYLES)
    return {"style": Markup(style), "script": Markup((HERE / "report.js").read_text(encoding="utf-8"))}


def budget(eps: float) -> str:
    """Return a perturbation budget as people write it: "4/255" for a small multiple of 1/510, else 4 digits."""
    parts = Fraction(eps * 255).limit_denominator(1000)
    exact = abs(float(parts) - eps * 255) < 1e-6 and parts.denominator <= 2 and parts <= 32
    return f"{float(parts):g}/255" if exact and parts else f"{eps:.4g}"


def _plain(value: object) -> str:
    """Return any value of audit.json in one line."""
    if isinstance(value, dict):
        inner = {key: f"({_plain(item)})" if isinstance(item, dict) else _plain(item) for key, item in value.items()}
        return ", ".join(f"{key} {item}" for key, item in inner.items())
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _columns(subjects: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (attack, "aimed" or "all") of every column of the table of figures that is not empty."""
    found: dict[tuple[str, str], None] = {}
    for subject in subjects:
        for run in subject["attacks"]:
            found[run["attack"], "all" if run["attacked"] == "all" else "aimed"] = None
    return list(found)


def _context(measured: Mapping[str, Any], forest: Forest, folder: Path) -> dict[str, Any]:
    audit, gallery = measured["audit"], read_gallery(folder, forest)
    return {
        "figures": measured,
        "audit": audit,
        "subjects": measured["models"],
        "cuts": measured["cuts"],
        "columns": _columns(measured["models"]),
        "hero": hero(measured),
        "notes": notes(measured),
        "gallery": gallery,
        "trees": _trees(measured, forest),
        "panels": parts.curve_panels(measured, forest),
        "curve_reading": parts.curve_reading(measured),
        "cascades": parts.cascade_names(measured),
        "attacked_by": parts.cascade_levels(measured),
        "beside": parts.beside_names(measured),
        "fragile": parts.fragile_entries(measured, gallery),
        "checks": parts.check_groups(measured["checks"]),
        "rebuild": parts.rebuild_command(folder),
        "dumbbell": _marked(charts.dumbbell),
        "fates": _marked(charts.fates),
        "stage_colour": charts.stage_colour,
        "scale": Markup(charts.scale_legend()),
        "crowded": forest.leaf_count > CROWDED,
        "broken_colour": charts.broken_colour,
        "curve_in_ball": Markup(margin_curve.draw_margin_in_ball()),
        "curve_in_tangent_space": Markup(margin_curve.draw_margin_in_tangent_space()),
        **dress(),
        "protocol": {key: value for key, value in audit.items() if key not in NOT_PROTOCOL},
    }


def _marked(draw: Callable[..., str]) -> Callable[..., Markup]:
    return lambda *arguments: Markup(draw(*arguments))


def _trees(measured: Mapping[str, Any], forest: Forest) -> list[dict[str, Any]]:
    """Return for each (model, head) one drawing per tree, its nodes coloured by worst-case accuracy."""
    drawn = []
    for subject in measured["models"]:
        pictures = []
        for tree in forest.trees:
            value: dict[int, float] = {}
            for cut, level in zip(measured["cuts"], subject["cuts"], strict=True):
                if cut["tree"] in (None, tree.name):
                    found = (node for node in level["by_node"] if node["worst"] is not None)
                    value |= {node["node"]: node["worst"]["value"] for node in found}
            if value:
                width = WIDE if forest.leaf_count > CROWDED else NARROW
                pictures.append(Markup(draw_tree(forest, tree.name, colour=value, width=width)))
        if pictures:
            drawn.append({"subject": subject, "pictures": pictures})
    return drawn
