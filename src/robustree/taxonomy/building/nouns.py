"""The nouns of WordNet 3.0: synsets, their lemmas and hypernyms, from the embedded table."""

from __future__ import annotations

import lzma
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files

WNID = re.compile(r"n\d{8}")
"""A noun synset: n and its eight digits in WordNet 3.0, as ImageNet writes it."""

_ENDINGS = (("ies", "y"), ("men", "man"), ("ves", "f"), ("es", ""), ("s", ""))


@dataclass(frozen=True)
class Synset:
    """One meaning.

    `lemmas`: its words, with blanks. `senses[i]`: which sense of `lemmas[i]` it is, from 1, the most frequent.
    `hypernyms`: the wnids above it in WordNet's order; an instance (Eiffel Tower) has its classes there.
    """

    wnid: str
    lemmas: tuple[str, ...]
    senses: tuple[int, ...]
    hypernyms: tuple[str, ...]


@dataclass(frozen=True)
class Nouns:
    """All noun synsets by wnid, and the irregular plurals with their singulars."""

    synsets: Mapping[str, Synset]
    plurals: Mapping[str, tuple[str, ...]]

    @cached_property
    def _by_lemma(self) -> dict[str, tuple[str, ...]]:
        numbered: dict[str, dict[int, str]] = {}
        for synset in self.synsets.values():
            for lemma, number in zip(synset.lemmas, synset.senses, strict=True):
                numbered.setdefault(lemma.casefold(), {})[number] = synset.wnid
        return {lemma: tuple(wnids[n] for n in sorted(wnids)) for lemma, wnids in numbered.items()}

    @property
    def lemmas(self) -> tuple[str, ...]:
        """All lemmas in lower case."""
        return tuple(self._by_lemma)

    def senses(self, lemma: str) -> tuple[str, ...]:
        """The synsets of a lemma, the most frequent sense first; empty where WordNet does not have it."""
        return self._by_lemma.get(lemma.casefold(), ())

    def spelled_alike(self, text: str) -> tuple[str, ...]:
        """The lemmas with the same letters and digits in the same order: "coffee maker" for "coffeemaker"."""
        return tuple(self._by_letters.get(_letters(text), ()))

    @cached_property
    def _by_letters(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for lemma in self._by_lemma:
            found.setdefault(_letters(lemma), []).append(lemma)
        return found

    def singulars(self, lemma: str) -> tuple[str, ...]:
        """Lemmas of WordNet of which this may be the plural: irregular ones, else by the ending."""
        words = lemma.casefold().split(" ")
        *first, last = words
        if last in self.plurals:
            stems = self.plurals[last]
        else:
            stems = tuple(last.removesuffix(end) + new for end, new in _ENDINGS if last.endswith(end))
        whole = (" ".join([*first, stem]) for stem in stems)
        return tuple(single for single in whole if single in self._by_lemma)

    def chain(self, wnid: str) -> tuple[str, ...]:
        """A synset and what lies above it, by the first hypernym at every step: one path, so that a tree arises."""
        chain = [wnid]
        while self.synsets[chain[-1]].hypernyms:
            chain.append(self.synsets[chain[-1]].hypernyms[0])
        return tuple(chain)

    def above(self, wnid: str) -> frozenset[str]:
        """All synsets above one, by every hypernym; itself excluded."""
        if wnid not in self._above:
            hypernyms = self.synsets[wnid].hypernyms
            self._above[wnid] = frozenset(hypernyms).union(*map(self.above, hypernyms))
        return self._above[wnid]

    @cached_property
    def _above(self) -> dict[str, frozenset[str]]:
        return {}

    @cached_property
    def information(self) -> dict[str, float]:
        """How much it says to be below a synset, 1 - ln(1 + h) / ln(N), with h of the N synsets below it: 0 at the top.

        Source: the intrinsic information content of Seco, Veale and Hayes (ECAI 2004)."""
        below = Counter(above for wnid in self.synsets for above in self.above(wnid))
        total = math.log(len(self.synsets))
        return {wnid: 1 - math.log1p(below[wnid]) / total for wnid in self.synsets}

    def paths(self, wnid: str) -> int:
        """The number of different ways from a synset up to the top."""
        above = self.synsets[wnid].hypernyms
        return sum(self.paths(hypernym) for hypernym in above) if above else 1


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text.casefold())


@lru_cache(maxsize=1)
def wordnet_nouns() -> Nouns:
    """WordNet 3.0's 82,115 noun synsets (`tools/build_wordnet_nouns.py` made the table)."""
    content = files("robustree.taxonomy.building").joinpath("wordnet30", "nouns.tsv.xz").read_bytes()
    table, _, irregular = lzma.decompress(content).decode("ascii").partition("\n\n")
    synsets = {}
    for line in table.split("\n"):
        wnid, words, above = line.split("\t")
        parted = [word.partition(":") for word in words.split(" ")]
        lemmas = tuple(lemma.replace("_", " ") for lemma, _, _ in parted)
        senses = tuple(int(number or 1) for _, _, number in parted)
        synsets[wnid] = Synset(wnid, lemmas, senses, tuple(above.split()))
    plurals = {plural: tuple(singles) for plural, *singles in map(str.split, irregular.splitlines())}
    return Nouns(synsets, plurals)
