"""The layout of the page and its events; every event is one call into the other modules."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from robustree.auditing.report.page import draw_transfer
from robustree.demo import visits
from robustree.demo.attacking import ALL, MOST_STEPS, Wish, aims
from robustree.demo.bench import Bench
from robustree.demo.decisions import levels_of, truth_of
from robustree.demo.eps_chart import draw_falls
from robustree.demo.eps_sweep import Fall, sweep
from robustree.demo.style import THEME_VALUES
from robustree.demo.uploads import read_upload
from robustree.demo.views import render
from robustree.demo.visits import Visit

REPORT_ROUTE = "/audit/report.html"
ANY = -1
"""The aim "any wrong answer"; nodes count from 0."""
NO_SWEEP = '<p class="about">Nothing has been computed for this image and this tree yet.</p>'
NO_DISK = (
    '<p class="about">None of these models lives in a ball. <code>robustree harden hierarchical</code> makes one, and '
    "<code>robustree demo nano NEW_MODEL</code> shows it here.</p>"
)
NO_AUDIT = (
    '<p class="about">No audit was given. <code>robustree audit nano --output audit</code> makes one, and '
    "<code>robustree demo --audit audit</code> shows it here.</p>"
)
Changes = dict[Any, Any]
"""New values by component."""


def theme() -> gr.themes.Base:
    """Gradio's plainest theme in the colours and types of the report."""
    sans = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "Menlo", "Consolas", "monospace")]
    return gr.themes.Base(font=sans, font_mono=mono).set(**THEME_VALUES)


def build_page(bench: Bench) -> gr.Blocks:
    """The page over a bench; gradio serves it."""
    return _Page(bench).blocks


class _Page:
    """The components, and the functions between them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        begun = visits.begin(bench, bench.samples[0])
        shown = visits.show(bench, begun, bench.forest.trees[0].name)
        with gr.Blocks(title="robustree", analytics_enabled=False, delete_cache=(600, 600), fill_width=True) as blocks:
            self.visit, self.falls = gr.State(begun), gr.State([])  # gradio copies them for every visitor
            _paper(render("header.html.jinja", missing=bench.missing))
            with gr.Row(elem_classes="bench"):
                with gr.Column(scale=1, min_width=290, elem_classes="controls"):
                    self._controls(begun)
                with gr.Column(scale=4, min_width=320), gr.Tabs():
                    with gr.Tab("Attack"):
                        self.cards = _paper(shown.cards, elem_id="cards")
                    with gr.Tab("Over ε"):
                        self._sweep()
                    with gr.Tab("Ball"):
                        self.disk = _paper(shown.disk or NO_DISK, elem_id="disk")
                    with gr.Tab("Audit"):
                        _paper(_audit(bench.audit), elem_id="audit")
            self._events()
        self.blocks = blocks

    def _controls(self, begun: Visit) -> None:
        thumbnails = [(np.moveaxis((s.pixels * 255).byte().numpy(), 0, -1), s.name) for s in self.bench.samples]
        self.gallery = gr.Gallery(
            thumbnails,
            label="Image",
            columns=4,
            height="auto",
            allow_preview=False,
            selected_index=0,
            object_fit="cover",
            format="png",
            interactive=False,
            buttons=[],
            elem_id="gallery",
        )
        self.upload = gr.UploadButton("Upload an image", file_types=["image"], size="sm", elem_id="upload")
        self.notice = _paper("", elem_id="notice")
        trees = [tree.name for tree in self.bench.forest.trees]
        self.tree = gr.Radio(trees, value=trees[0], label="Tree", visible=len(trees) > 1, elem_id="tree")
        self.level = gr.Dropdown(self._levels(trees[0]), value="leaf", label="Level to attack", elem_id="level")
        self.aim = gr.Dropdown(
            self._aims(begun, trees[0], "leaf"), value=ANY, label="What the image shall be taken for", elem_id="aim"
        )
        self.eps = gr.Slider(0.5, 16, value=4, step=0.5, label="ε, largest change of a pixel, in 1/255", elem_id="eps")
        self.steps = gr.Slider(1, MOST_STEPS, value=20, step=1, label="Steps", elem_id="steps")
        with gr.Row():
            self.start = gr.Button("Attack", variant="primary", min_width=80, elem_id="attack")
            self.stop = gr.Button("Stop", min_width=80, elem_id="stop")

    def _sweep(self) -> None:
        _paper(render("sweep.html.jinja"))
        self.sweep = gr.Button("Find where each level falls", variant="primary", elem_id="sweep")
        self.here = gr.Slider(0, 16, value=4, step=0.5, label="ε in 1/255", elem_id="here")
        self.chart = _paper(NO_SWEEP, elem_id="chart")

    def _events(self) -> None:
        quick: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        heavy: dict[str, Any] = {**quick, "concurrency_id": "models", "concurrency_limit": 2}
        fresh = [self.visit, self.notice, self.level, self.aim, self.cards, self.disk, self.falls, self.chart]
        attacked = self.start.click(
            self._attack,
            [self.visit, self.tree, self.level, self.aim, self.eps, self.steps],
            [self.notice, self.cards, self.disk],
            scroll_to_output=False,
            **heavy,
        )
        swept = self.sweep.click(
            self._find_falls, [self.visit, self.tree, self.here], [self.falls, self.chart], **heavy
        )
        running: Any = [attacked, swept]  # gradio's own hint for `cancels` leaves events out
        self.stop.click(None, cancels=running, **quick)
        self.gallery.select(self._pick, [self.tree], fresh, cancels=running, **heavy)
        self.upload.upload(self._take, [self.upload, self.tree], [self.gallery, *fresh], cancels=running, **heavy)
        self.tree.change(self._plant, [self.visit, self.tree], fresh, cancels=running, **heavy)
        self.level.change(self._aim_at, [self.visit, self.tree, self.level], [self.aim], **quick)
        self.here.change(self._draw_falls, [self.falls, self.here], [self.chart], **quick)

    def _levels(self, tree: str) -> list[tuple[str, str]]:
        cuts = levels_of(self.bench.forest, tree)
        named = [(f"{cut.label}, {len(cut.nodes)} nodes", cut.label) for cut in cuts]
        return [*named, ("all levels of all trees at once", ALL)]

    def _aims(self, visit: Visit, tree: str, level: str) -> list[tuple[str, int]]:
        leaf = visit.sample.leaf
        truth = None if leaf is None else truth_of(self.bench.forest, leaf)
        return [("any wrong answer", ANY), *aims(self.bench.forest, tree, level, truth)]

    def _pick(self, tree: str, chosen: gr.SelectData) -> Changes:
        return self._fresh(visits.begin(self.bench, self.bench.samples[chosen.index]), tree)

    def _take(self, path: str, tree: str) -> Changes:
        try:
            sample = read_upload(Path(path), resolution=self.bench.resolution)
        except ValueError as refused:
            return {self.notice: _alert(refused)}
        return {self.gallery: gr.Gallery(selected_index=None)} | self._fresh(visits.begin(self.bench, sample), tree)

    def _plant(self, visit: Visit, tree: str) -> Changes:
        return self._fresh(visit, tree)

    def _fresh(self, visit: Visit, tree: str) -> Changes:
        """The page for an image that nobody has attacked yet."""
        shown = visits.show(self.bench, visit, tree)
        return {
            self.visit: visit,
            self.notice: "",
            self.level: gr.Dropdown(choices=self._levels(tree), value="leaf"),
            self.aim: gr.Dropdown(choices=self._aims(visit, tree, "leaf"), value=ANY),
            self.cards: shown.cards,
            self.disk: shown.disk or NO_DISK,
            self.falls: [],
            self.chart: NO_SWEEP,
        }

    def _aim_at(self, visit: Visit, tree: str, level: str) -> Changes:
        return {self.aim: gr.Dropdown(choices=self._aims(visit, tree, level), value=ANY)}

    def _attack(self, visit: Visit, tree: str, level: str, aim: int, eps: float, steps: int) -> Iterator[Changes]:
        try:
            wish = Wish(
                forest=self.bench.forest, level=level, towards=None if aim == ANY else aim, eps=eps / 255, steps=steps
            )
            for shown in visits.attack(self.bench, visit, tree, wish):
                yield {self.notice: "", self.cards: shown.cards, self.disk: shown.disk or NO_DISK}
        except ValueError as refused:
            yield {self.notice: _alert(refused)}

    def _find_falls(self, visit: Visit, tree: str, here: float) -> Iterator[Changes]:
        falls: list[Fall] = []
        for fall in sweep(self.bench, visit.sample, tree):
            falls.append(fall)
            yield {self.falls: list(falls), self.chart: draw_falls(falls, self.bench.subjects, here / 255)}

    def _draw_falls(self, falls: list[Fall], here: float) -> Changes:
        return {self.chart: draw_falls(falls, self.bench.subjects, here / 255) if falls else NO_SWEEP}


def _paper(content: str, **where: str) -> gr.HTML:
    """HTML in the report's style, without gradio's own."""
    return gr.HTML(content, elem_classes="paper", apply_default_css=False, **where)  # type: ignore[arg-type]


def _alert(refused: ValueError) -> str:
    return f'<p class="alert" role="alert">{escape(str(refused))}</p>'


def _audit(directory: Path | None) -> str:
    if directory is None:
        return NO_AUDIT
    frame = f'<iframe src="{REPORT_ROUTE}" title="Report of the audit" sandbox="allow-scripts" loading="lazy"></iframe>'
    return f"{draw_transfer(directory)}<h2>The whole report</h2>{frame}"
