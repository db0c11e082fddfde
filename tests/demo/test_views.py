from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustree.auditing.audit import Subject
from robustree.data import AuditImages
from robustree.demo.attacking import ALL, Wish, watch
from robustree.demo.bench import SAMPLES, Bench, Sample, choose_samples
from robustree.demo.decisions import decide
from robustree.demo.views import draw_cards, picture_uri
from robustree.demo.visits import attack, begin, show
from robustree.geometry import Sphere
from robustree.taxonomy import TreeSource, build_forest
from robustree.tree_model import TreeModel
from tests.auditing.page import Page, parsed


def classed(page: Page, name: str) -> list[dict[str, str | None]]:
    return [found for _, found in page.seen if name in (found.get("class") or "").split()]


def test_before_an_attack_each_model_has_its_card(bench: Bench) -> None:
    visit = begin(bench, bench.samples[0])
    html = show(bench, visit, "home").cards
    page = parsed(html)
    assert len(classed(page, "card")) == 2
    assert [found["alt"] for tag, found in page.seen if tag == "img"] == ["clean image, plain", "clean image, deep"]
    assert html.count('scope="row"') == 2 * 4
    assert "wild" in html  # the dog of image 0 stands for itself; somebody's path or the drawing names the other nodes
    assert '<p class="shows">dog</p>' in html
    assert html.count("not attacked yet") == 2
    assert len(classed(page, "trace")) == 2


def test_under_attack_cards_say_what_the_looks_say(bench: Bench) -> None:
    sample, forest = bench.samples[2], bench.forest
    wish = Wish(forest=forest, level="kind/2", towards=forest.names.index("food"), eps=1.0, steps=9)
    clean = [decide(subject, forest, sample.pixels) for subject in bench.subjects]
    watched = [list(watch(subject, sample, said, wish)) for subject, said in zip(bench.subjects, clean, strict=True)]
    for step in (0, 9):
        looks = [found[step] for found in watched]
        html = draw_cards(bench, sample, "kind", clean, wish=wish, looks=looks)
        page = parsed(html)
        assert f"Step {step} of 9 · aimed at kind/2, towards “food” · ε = 1" in html
        assert len([tag for tag, _ in page.seen if tag == "img"]) == 6
        assert len(classed(page, "trace")) == 4
        for look in looks:
            ending = f"taken for food after {look.first} step{'' if look.first == 1 else 's'}"
            assert (ending if look.achieved else "stands") in html
        assert html.count("attacked</span></span>") == 2  # one marked level a card
        for subject, look in zip(bench.subjects, looks, strict=True):
            now = decide(subject, forest, look.image)
            path = ", ".join(forest.names[now[label].node] for label in ("kind/2", "kind/1", "leaf"))
            assert f"; under attack: {path}." in html


def test_marks_are_right_or_wrong_by_the_label_and_silent_without_one(bench: Bench, unlabelled: Sample) -> None:
    clean = [decide(subject, bench.forest, unlabelled.pixels) for subject in bench.subjects]
    silent = draw_cards(bench, unlabelled, "kind", clean)
    assert 'aria-label="right"' not in silent
    assert 'aria-label="wrong"' not in silent
    assert "mine.png: what it shows is for the models to say" in silent
    says = clean[0]["leaf"].node
    right = draw_cards(bench, replace(unlabelled, leaf=says), "kind", clean)
    wrong = draw_cards(bench, replace(unlabelled, leaf=(says + 1) % 9), "kind", clean)
    row = f"{bench.forest.names[says]}</span> <small>{100 * clean[0]['leaf'].score:.0f}\N{NO-BREAK SPACE}%"
    assert f'<span class="right"><span role="img" aria-label="right">✓</span> {row}' in right
    assert f'<span class="wrong"><span role="img" aria-label="wrong">✗</span> {row}' in wrong
    wish = Wish(forest=bench.forest, level="leaf", eps=1.0, steps=9)
    *_, look = watch(bench.subjects[0], unlabelled, clean[0], wish)
    assert look.achieved
    changed = draw_cards(
        replace(bench, subjects=bench.subjects[:1]), unlabelled, "kind", clean, wish=wish, looks=[look]
    )
    assert "aimed at leaf, away from the first answer · ε = 1" in changed
    assert '<span class="changed"><span role="img" aria-label="changed">≠</span>' in changed
    assert f'<span class="was">was {bench.forest.names[says]}</span>' in changed


def test_verdicts_say_what_the_attack_did(bench: Bench) -> None:
    forest = bench.forest
    one = replace(bench, subjects=bench.subjects[:1])

    def verdict(sample: Sample, **wanted: Any) -> str:
        clean = decide(one.subjects[0], forest, sample.pixels)
        *_, look = watch(one.subjects[0], sample, clean, Wish(forest=forest, steps=8, **wanted))
        html = draw_cards(one, sample, "kind", [clean], wish=Wish(forest=forest, steps=8, **wanted), looks=[look])
        (said,) = re.findall(r'<span class="verdict[^>]*>([^<]*)</span>', html)
        return said

    said = decide(one.subjects[0], forest, bench.samples[0].pixels)["leaf"].node
    known = replace(bench.samples[0], leaf=said)
    mistaken = replace(bench.samples[0], leaf=(said + 1) % 9)
    assert re.fullmatch(r"broken at leaf after \d+ steps?", verdict(known, level="leaf", eps=1.0))
    assert verdict(known, level="leaf", eps=1e-6) == "stands"
    assert verdict(mistaken, level="leaf", eps=1e-6) == "wrong before the attack"
    clean = decide(one.subjects[0], forest, known.pixels)
    wrong = sum(clean[cut.label].node != cut.nodes[cut.of_leaf[said]] for cut in forest.cuts())
    assert verdict(known, level=ALL, eps=1e-6) == f"{wrong} of 6 levels broken"


def test_names_cannot_break_out_of_the_page(make_tree_model: Callable[..., TreeModel]) -> None:
    evil = "<script>alert(1)</script>"
    tree = TreeSource("kind", {"a": [evil, '"x" onload="y'], "b": ["c&d"]})
    forest = build_forest([evil, '"x" onload="y', "c&d"], [tree])
    subject = Subject("<b>bold</b>", make_tree_model(Sphere(), forest=forest))
    sample = Sample(name="<img src=x>", pixels=torch.zeros(3, 6, 6), leaf=None)
    bench = Bench(subjects=(subject,), forest=forest, samples=(sample,), resolution=6)
    page = parsed(show(bench, begin(bench, sample), "kind").cards)
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "b"}
    assert not any("onload" in attributes for _, attributes in page.seen)
    assert next(found["src"] for tag, found in page.seen if tag == "img").startswith("data:image/png;base64,")


def test_an_attack_is_shown_in_every_part_at_every_step(bench: Bench) -> None:
    visit = begin(bench, bench.samples[0])
    wish = Wish(forest=bench.forest, level=ALL, eps=16 / 255, steps=3)
    shown = list(attack(bench, visit, "kind", wish))
    assert len(shown) == 4
    assert all(f"Step {step} of 3 · aimed at all levels at once" in part.cards for step, part in enumerate(shown))
    assert all("<svg" in part.disk for part in shown)
    assert shown[0].disk != shown[-1].disk
    flat = replace(bench, subjects=bench.subjects[:1])
    (first, *_) = attack(flat, begin(flat, bench.samples[0]), "kind", wish)
    assert first.disk == ""


def test_pictures_are_exact_pngs(bench: Bench) -> None:
    pixels = bench.samples[0].pixels
    kind, content = picture_uri(pixels).split(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        read = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
    assert torch.equal(read, (pixels * 255).round().byte())


def test_samples_are_what_models_know_best(bench: Bench) -> None:
    pixels = torch.rand(30, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    said = [decide(bench.subjects[0], bench.forest, image)["leaf"].node for image in pixels]
    leaves = torch.tensor([leaf if k % 2 else (leaf + 5) % 9 for k, leaf in enumerate(said)])
    images = AuditImages(pixels, leaves, tuple(f"{k}" for k in range(30)))
    chosen = choose_samples(bench.subjects[:1], bench.forest, images)
    assert len(chosen) == SAMPLES
    assert [int(sample.name) for sample in chosen] == sorted(int(sample.name) for sample in chosen)

    def right(position: int) -> int:
        found = decide(bench.subjects[0], bench.forest, pixels[position])
        return sum(found[c.label].node == c.nodes[c.of_leaf[leaves[position]]] for c in bench.forest.cuts())

    kept = {int(sample.name) for sample in chosen}
    assert min(right(k) for k in kept) >= max(right(k) for k in range(30) if k not in kept)


def test_a_bench_needs_a_model_a_tree_and_an_image(bench: Bench) -> None:
    for change in ({"subjects": ()}, {"samples": ()}, {"forest": bench.forest.select([])}):
        with pytest.raises(ValueError, match="it needs one of each at least"):
            replace(bench, **change)
