"""Rebuild the embedded data set `src/robustree/data/quickstart` from pinned npm packages.

    python tools/build_emoji.py [--packages FOLDER]

The archives that are not in FOLDER are fetched with `npm pack`; every archive is checked against its
recorded SHA-256. Needs `npm`, Pillow and resvg_py (0.5.0; another renderer or WebP encoder version may
change the bytes of images.zip). The result has fixed time stamps and a fixed order of files.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import resvg_py
from emoji_sources import SOURCES, Source
from PIL import Image

SIDE = 72
# One transparent pixel all round: WebP would drop the alpha channel of a drawing that fills its square.
MARGIN = 1
INSIDE = SIDE - 2 * MARGIN
QUALITY = 90
VALIDATION_SHARE = 0.12
# The three Fluent editions share outlines, so a Fluent image held out for validation would have
# near copies in the training split; validation images come from the other training styles.
VALIDATION_STYLES = frozenset({"noto", "noto-v1", "fxemoji"})
VALIDATION_PER_CLASS = 2
TRAINING_STYLES_PER_CLASS = 4
HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "src" / "robustree" / "data" / "quickstart"
ABOUT = (
    "262 everyday things drawn by eight sets of emoji. The test split holds every image of two sets whose "
    "artists drew no training image. The validation split holds about 12 % of the other images, taken "
    "from noto, noto-v1 and fxemoji only, because the three Fluent editions share outlines. "
    f"Images are {SIDE} x {SIDE} RGBA WebP files in images.zip, named by their id."
)

Draw = Callable[[dict[str, str]], Image.Image]


def slug_of(name: str) -> str:
    """Return the class name in lower case with hyphens between its words."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def fetch(source: Source, folder: Path) -> Path:
    """Return the archive of a source, fetched when absent; ValueError if its SHA-256 differs."""
    path = folder / source.archive
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", f"{source.package}@{source.version}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != source.sha256:
        raise ValueError(f"{path.name} has SHA-256 {found}, not {source.sha256}; delete it and run again.")
    return path


def fit(image: Image.Image) -> Image.Image:
    """Centre an image of any shape on a transparent SIDE x SIDE square, scaled to fill it up to MARGIN."""
    image = image.convert("RGBA")
    scale = INSIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    square.paste(image, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square


def svg_text(icons: dict[str, Any], name: str) -> str:
    """Return one icon of an Iconify file as a complete SVG document."""
    icon = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
    width = icon.get("width", icons["width"])
    height = icon.get("height", icons["height"])
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{box}" width="{width}" height="{height}">{icon["body"]}</svg>'


def open_iconify(archive: Path, style: str) -> Draw:
    """Return the drawing function of an Iconify package."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/icons.json")
        if member is None:
            raise ValueError(f"{archive.name} has no package/icons.json; check the pinned version.")
        icons = json.load(member)

    def draw(row: dict[str, str]) -> Image.Image:
        name = row["fxemoji"] if style == "fxemoji" else row["icon"]
        png = resvg_py.svg_to_bytes(svg_string=svg_text(icons, name), width=INSIDE)
        return Image.open(io.BytesIO(bytes(png)))

    return draw


def open_files(archive: Path) -> Draw:
    """Return the drawing function of a package with one WebP file per code point."""
    with tarfile.open(archive) as tar:
        members = {m.name: tar.extractfile(m) for m in tar.getmembers() if m.name.endswith(".webp")}
        files = {Path(name).stem: stream.read() for name, stream in members.items() if stream is not None}

    def draw(row: dict[str, str]) -> Image.Image:
        code = row["codepoint"].lower()
        return Image.open(io.BytesIO(files[code] if code in files else files[f"{code}-fe0f"]))

    return draw


def encode(image: Image.Image) -> bytes:
    """Return the image as WebP: lossy colours, lossless alpha."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, alpha_quality=100, method=6)
    return buffer.getvalue()


def validation_ids(images: list[dict[str, Any]]) -> frozenset[str]:
    """Choose the validation images: in order of the SHA-256 of their id, within the per-class limits."""
    training = [image for image in images if image["split"] == "train"]
    wanted = round(VALIDATION_SHARE * len(training))
    left: dict[int, int] = {}
    for image in training:
        left[image["leaf"]] = left.get(image["leaf"], 0) + 1
    taken: dict[int, int] = {}
    chosen: list[str] = []
    for image in sorted(training, key=lambda image: hashlib.sha256(image["id"].encode()).hexdigest()):
        leaf = image["leaf"]
        room = left[leaf] > TRAINING_STYLES_PER_CLASS and taken.get(leaf, 0) < VALIDATION_PER_CLASS
        if image["style"] in VALIDATION_STYLES and room and len(chosen) < wanted:
            chosen.append(image["id"])
            left[leaf] -= 1
            taken[leaf] = taken.get(leaf, 0) + 1
    return frozenset(chosen)


def build(packages: Path, target: Path) -> None:
    """Write images.zip and classes.json into the target folder."""
    rows: list[dict[str, str]] = json.loads((HERE / "emoji_classes.json").read_text("utf-8"))["classes"]
    images: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    for source in SOURCES:
        archive = fetch(source, packages)
        draw = open_files(archive) if source.style == "fluent-3d" else open_iconify(archive, source.style)
        for leaf, row in enumerate(rows):
            if source.style == "fxemoji" and "fxemoji" not in row:
                continue
            name = f"{source.style}/{slug_of(row['name'])}"
            files[name] = encode(fit(draw(row)))
            images.append({"id": name, "leaf": leaf, "style": source.style, "split": source.split})
    validation = validation_ids(images)
    images = [image | {"split": "val"} if image["id"] in validation else image for image in images]
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target / "images.zip", "w", zipfile.ZIP_STORED) as out:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{name}.webp", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            out.writestr(entry, files[name])
    classes = [{"name": row["name"], "slug": slug_of(row["name"]), "codepoint": row["codepoint"]} for row in rows]
    keys = ("artist", "package", "version", "licence", "url", "split")
    styles = [{"name": source.style} | {key: getattr(source, key) for key in keys} for source in SOURCES]
    parts = (("classes", classes), ("styles", styles), ("images", images))
    lines = [f'{{"about": {json.dumps(ABOUT)}']
    for key, values in parts:
        lines.append(f'"{key}": [\n' + ",\n".join(json.dumps(value) for value in values) + "\n]")
    (target / "classes.json").write_text(",\n".join(lines) + "\n}\n", "utf-8")


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--packages", type=Path, default=HERE.parent / "runs" / "emoji-packages")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    build(arguments.packages, arguments.target)


if __name__ == "__main__":
    main()
