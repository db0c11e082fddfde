"""`robustree attack`: saved PNGs obey the threat and stay adversarial when they are read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustree.data import read_image
from tests.cli.conftest import Run


@pytest.fixture
def words(house: Path, tmp_path: Path) -> list[object]:
    tree = ["--trees", house / "tree.json", "--output", tmp_path / "made", "--device", "cpu", "--pgd.steps", 4]
    return ["attack", house / "clip", house / "images", *tree]


def _again(run: Run, house: Path, files: list[Path]) -> list[dict[str, str]]:
    """What the model says of saved files, level by level, through the command that knows nothing of the attack."""
    ran = run("classify", house / "clip", *files, "--trees", house / "tree.json", "--json", "--device", "cpu")
    return [{step["level"]: step["name"] for step in result["trees"]["things"]} for result in json.loads(ran.out)]


@pytest.mark.parametrize("eps", [1, 8])
def test_saved_images_keep_threat_size_and_attack(
    run: Run, house: Path, tmp_path: Path, words: list[object], eps: int
) -> None:
    ran = run(*words, "--level", "things/1", "--threat.eps", f"{eps}/255")
    assert ran.code == 0
    record = json.loads((tmp_path / "made" / "attack.json").read_text())
    assert len(record["images"]) == 12
    files = [tmp_path / "made" / entry["file"] for entry in record["images"]]
    for entry, file, seen in zip(record["images"], files, _again(run, house, files), strict=True):
        clean = np.asarray(Image.open(house / "images" / entry["image"])).astype(int)
        made = np.asarray(Image.open(file)).astype(int)
        assert made.shape == clean.shape
        assert np.abs(made - clean).max() <= eps
        assert entry["valid"] and entry["distance"] <= eps / 255 + 1e-6
        assert seen["things/1"] == entry["after"]["things/1"]
        assert entry["kept"] == (seen["things/1"] != entry["truth"]["things/1"])
    kept = sum(entry["kept"] for entry in record["images"])
    assert f"{kept} of 12 saved images are decided wrongly at things/1; {tmp_path / 'made' / 'attack.json'}" in ran.out
    assert kept >= sum(entry["reached_before"] for entry in record["images"])


def test_plain_images_lose_their_own_decision(run: Run, house: Path, tmp_path: Path, words: list[object]) -> None:
    words[2] = house / "plain"
    assert run(*words, "--level", "leaf", "--threat.eps", "24/255").code == 0
    entries = json.loads((tmp_path / "made" / "attack.json").read_text())["images"]
    assert {entry["image"] for entry in entries} == {p.name for p in (house / "plain").iterdir()}
    assert "owl.jpg.png" in {entry["file"] for entry in entries}
    assert all(entry["truth"] is None and not entry["reached_before"] for entry in entries)
    assert any(entry["kept"] for entry in entries)
    assert all(entry["kept"] == (entry["before"]["leaf"] != entry["after"]["leaf"]) for entry in entries)


def test_a_target_is_reached(run: Run, house: Path, tmp_path: Path, words: list[object]) -> None:
    ran = run(*words, "--level", "things/2", "--towards", "food", "--threat.eps", "32/255")
    assert ran.code == 0 and "are taken for 'food'" in ran.out
    entries = json.loads((tmp_path / "made" / "attack.json").read_text())["images"]
    assert all(entry["kept"] == (entry["after"]["things/2"] == "food") for entry in entries)


def test_all_levels_and_l2(run: Run, tmp_path: Path, words: list[object]) -> None:
    ran = run(*words, "--level", "all", "--threat.norm", "l2", "--threat.eps", "200/255")
    assert ran.code == 0 and "levels changed" in ran.out
    entries = json.loads((tmp_path / "made" / "attack.json").read_text())["images"]
    assert all(entry["valid"] and entry["distance"] <= 200 / 255 + 1e-6 for entry in entries)
    assert all(len(entry["after"]) == 3 for entry in entries)
    assert all(entry["kept"] == (entry["after"] != entry["truth"]) for entry in entries)


def test_the_same_command_gives_the_same_pixels(run: Run, tmp_path: Path, words: list[object]) -> None:
    def pixels() -> list[bytes]:
        assert run(*words).code == 0
        return [read_image(file).numpy().tobytes() for file in sorted((tmp_path / "made").rglob("*.png"))]

    assert pixels() == pixels()


def test_refusals(run: Run, house: Path, tmp_path: Path, words: list[object]) -> None:
    nodes = "level things/1 has no node 'mamal' (did you mean 'mammal'?): its nodes are mammal, bird, fruit, dish."
    cases = [
        (["--level", "thing/1"], "there is no level 'thing/1' (did you mean 'things/1'?): the levels are leaf, "),
        (["--level", "things/1", "--towards", "mamal"], nodes),
        (["--level", "all", "--towards", "mammal"], "--towards needs one level"),
        (["--threat.eps", "8"], "--threat.eps: eps is 8; pixels are in [0, 1], so write 4/255, not 4."),
        (["--threat.eps", "0.5/255"], "--threat.eps: eps is '0.5/255'; write a fraction such as 4/255"),
        (["--threat.eps", "0.002"], "eps is 0.51/255; an 8-bit image changes by 1/255 at least"),
        (["--output", house / "images"], "--output is the folder of the images"),
    ]
    for more, sentence in cases:
        ran = run(*words, *more)
        assert (ran.code, ran.out) == (2, ""), sentence
        assert ran.err.splitlines()[-1].startswith(f"error: {sentence}")
        assert not (tmp_path / "made").exists()
    words[2] = house / "nowhere"
    assert run(*words).err.startswith(f"error: {str(house / 'nowhere')!r} is not a folder")


@pytest.mark.parametrize("attack", ["pgd-ce", "cw", "apgd-t", "autoattack-fast"])
def test_other_attacks_by_name(run: Run, tmp_path: Path, words: list[object], attack: str) -> None:
    ran = run(*words, "--attack", attack, "--level", "things/2", "--threat.eps", "24/255")
    assert ran.code == 0
    entries = json.loads((tmp_path / "made" / "attack.json").read_text())["images"]
    assert all(entry["valid"] for entry in entries)
    assert sum(entry["kept"] for entry in entries) > sum(entry["reached_before"] for entry in entries)


def test_leaves_are_pushed_into_a_subtree(run: Run, tmp_path: Path, words: list[object]) -> None:
    ran = run(*words, "--level", "leaf", "--towards", "fruit", "--threat.eps", "32/255")
    assert ran.code == 0 and "are taken for 'fruit'" in ran.out
    entries = json.loads((tmp_path / "made" / "attack.json").read_text())["images"]
    assert all(entry["kept"] == (entry["after"]["leaf"] in ("pear", "plum")) for entry in entries)
    assert any(entry["kept"] and not entry["reached_before"] for entry in entries)


@pytest.mark.parametrize("attack", ["pgd-ce", "autoattack-fast"])
def test_all_levels_fall_to_any_attack(run: Run, tmp_path: Path, words: list[object], attack: str) -> None:
    ran = run(*words, "--attack", attack, "--level", "all", "--threat.eps", "48/255")
    assert ran.code == 0
    entries = json.loads((tmp_path / "made" / "attack.json").read_text())["images"]
    assert sum(len(set(entry["after"].items()) & set(entry["truth"].items())) == 0 for entry in entries) >= 3
