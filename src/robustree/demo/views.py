"""What a visitor sees of an attack: pictures, paths and the tree of each model, filled into `cards.html.jinja`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup
from torch import Tensor

from robustree.auditing.audit import Subject
from robustree.auditing.exhibits import magnified
from robustree.auditing.report.page import budget
from robustree.data.decoding import png_bytes
from robustree.demo.attacking import ALL, Look, Wish
from robustree.demo.bench import Bench, Sample
from robustree.demo.decisions import Decisions, levels_of, path_of, read, truth_of
from robustree.taxonomy import Forest, Trace, draw_tree

HERE = Path(__file__).parent
TREE_WIDTH = 360
RIGHT, WRONG = "var(--right)", "var(--wrong)"

Fate = Literal["right", "wrong", "kept", "changed"]
"""What became of a decision; the last two where nobody knows what is right."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One level of one card: the decision now, with its share of the softmax in percent, and the one before."""

    level: str
    attacked: bool
    now: str
    share: str
    fate: Fate
    before: str
    before_fate: Fate


@dataclass(frozen=True, kw_only=True)
class Card:
    """One model: its name and number (which gives the colour), three pictures as data URIs, rows and the tree."""

    name: str
    head: str
    number: int
    verdict: str
    broken: bool
    pictures: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    tree: Markup
    said: str


def draw_cards(
    bench: Bench,
    sample: Sample,
    tree: str,
    clean: Sequence[Decisions],
    *,
    wish: Wish | None = None,
    looks: Sequence[Look] = (),
) -> str:
    """The page's main part as HTML: a card for each model, before an attack (no `looks`) or after a step of it."""
    cards = [
        _card(bench, number, sample, tree, clean[number], wish, looks[number] if looks else None)
        for number in range(len(bench.subjects))
    ]
    page = {
        "cards": cards,
        "headline": _headline(bench.forest, sample, tree),
        "progress": _progress(bench.forest, sample, wish, looks[0].step) if wish and looks else None,
    }
    return render("cards.html.jinja", **page)


def _card(
    bench: Bench, number: int, sample: Sample, tree: str, clean: Decisions, wish: Wish | None, look: Look | None
) -> Card:
    subject, forest = bench.subjects[number], bench.forest
    now = clean if look is None else read(look.scores, forest)
    rows = tuple(_row(forest, cut.label, sample, clean, now, wish) for cut in reversed(levels_of(forest, tree)))
    pictures = [("clean", picture_uri(sample.pixels))]
    verdict, broken = (
        ("not attacked yet", False) if wish is None or look is None else _verdict(sample, clean, wish, look)
    )
    if look is not None:
        change = look.image.cpu() - sample.pixels
        times = 0.5 / max(float(change.abs().max()), 1e-6)
        pictures += [(f"change ×{times:.0f}", picture_uri(magnified(change))), ("attacked", picture_uri(look.image))]
    return Card(
        name=subject.name,
        head=subject.head,
        number=number,
        verdict=verdict,
        broken=broken,
        pictures=tuple(pictures),
        rows=rows,
        tree=Markup(_tree(forest, tree, sample, clean, None if look is None else now)),
        said=_said(subject, rows, attacked=look is not None),
    )


def _row(forest: Forest, level: str, sample: Sample, clean: Decisions, now: Decisions, wish: Wish | None) -> Row:
    truth = None if sample.leaf is None else truth_of(forest, sample.leaf)[level]
    before, after = clean[level].node, now[level].node

    def fate(node: int) -> Fate:
        if truth is None:
            return "kept" if node == before else "changed"
        return "right" if node == truth else "wrong"

    return Row(
        level=level,
        attacked=wish is not None and wish.level in (level, ALL),
        now=forest.names[after],
        share=f"{100 * now[level].score:.0f}",
        fate=fate(after),
        before=forest.names[before],
        before_fate=fate(before),
    )


def _tree(forest: Forest, tree: str, sample: Sample, clean: Decisions, now: Decisions | None) -> str:
    before = path_of(clean, forest, tree)
    truth = before if sample.leaf is None else forest.path(tree, sample.leaf)
    traces = [Trace(name="clean image", nodes=before, colour="var(--ink)", dashed=now is not None)]
    if now is not None:
        after = path_of(now, forest, tree)
        traces.append(Trace(name="attacked image", nodes=after, colour=RIGHT if after == truth else WRONG))
    return draw_tree(forest, tree, width=TREE_WIDTH, traces=traces)


def _verdict(sample: Sample, clean: Decisions, wish: Wish, look: Look) -> tuple[str, bool]:
    """What an attack has done, in a few words, and whether it has done anything."""
    forest = wish.forest
    truth = (
        {label: said.node for label, said in clean.items()} if sample.leaf is None else truth_of(forest, sample.leaf)
    )
    after = f"after {look.first} step{'s' if look.first != 1 else ''}"
    if wish.towards is not None:
        return (f"taken for {forest.names[wish.towards]} {after}", True) if look.achieved else ("stands", False)
    if wish.level == ALL:
        now = read(look.scores, forest)
        wrong = sum(now[label].node != node for label, node in truth.items())
        return f"{wrong} of {len(truth)} levels broken", wrong > 0
    if clean[wish.level].node != truth[wish.level]:
        return "wrong before the attack", True
    return (f"broken at {wish.level} {after}", True) if look.achieved else ("stands", False)


def _said(subject: Subject, rows: Sequence[Row], *, attacked: bool) -> str:
    """The tree drawing in words."""
    path = ", ".join(row.before for row in rows)
    after = f"; under attack: {', '.join(row.now for row in rows)}" if attacked else ""
    return f"The path of {subject.name} through the tree, from the top to the leaf: {path}{after}."


def _headline(forest: Forest, sample: Sample, tree: str) -> str:
    if sample.leaf is None:
        return f"{sample.name}: what it shows is for the models to say"
    return " › ".join(dict.fromkeys(forest.names[node] for node in reversed(forest.path(tree, sample.leaf))))


def _progress(forest: Forest, sample: Sample, wish: Wish, step: int) -> str:
    where = "all levels at once" if wish.level == ALL else wish.level
    goal = "away from the right answer" if sample.leaf is not None else "away from the first answer"
    if wish.towards is not None:
        goal = f"towards “{forest.names[wish.towards]}”"
    return f"Step {step} of {wish.steps} · aimed at {where}, {goal} · ε = {budget(wish.eps)}"


def picture_uri(image: Tensor) -> str:
    """An image (3, H, W) in [0, 1] as the data URI of a PNG."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode("ascii")


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def render(name: str, **values: Any) -> str:
    """A template of this package, filled in; whatever is not `Markup` is escaped."""
    return _template(name).render(values)
