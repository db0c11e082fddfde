"""From class names to WordNet synsets: which words are looked up, and which sense is meant."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robustree.taxonomy.building.nouns import WNID, Nouns

RARITY = 3.0
"""How much a later sense must fit better: ln(its number) times this is taken off its score."""

_QUALIFIED = re.compile(r"(.+) \((.+)\)")
_NEAREST = 3


@dataclass(frozen=True, kw_only=True)
class Sense:
    """A class, the synset that stands for it, what was looked up ("" for a given synset), and the other senses."""

    name: str
    wnid: str
    looked_up: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lookup:
    """WordNet's entries for a class name, by rules that need no choice."""

    nouns: Nouns

    def words(self, text: str) -> tuple[str, ...]:
        """The senses of exactly these words: as written, else with other blanks and hyphens, else as a plural.

        Words in lower case are no proper name as long as another sense is there: "crane" is not Stephen Crane."""
        found = self.nouns.senses(text)
        if text.islower():
            found = tuple(wnid for wnid in found if text in self.nouns.synsets[wnid].lemmas) or found
        return found or self._all(self.nouns.spelled_alike(text)) or self._all(self.nouns.singulars(text))

    def name(self, name: str) -> tuple[str, tuple[str, ...]]:
        """What was looked up and its senses.

        "crane (bird)" and "crane bird": the senses of "crane" below "bird". Otherwise the whole name, else the
        longest part at its end that WordNet has: "cup of coffee" is coffee, "red wooden chair" is a chair.
        """
        text = " ".join(name.replace("_", " ").split())
        qualified = _QUALIFIED.fullmatch(text)
        base, hint = qualified.groups() if qualified else text.rpartition(" ")[::2]
        whole = () if qualified else self.words(text)
        if whole:
            return text, whole
        below = self._below(self.words(base), hint) if base else ()
        if below:
            return text, below
        parts = base.split(" ") if qualified else text.split(" ")[1:]
        for start in range(len(parts)):
            part = " ".join(parts[start:])
            if found := self.words(part):
                return part, found
        return "", ()

    def nearest(self, name: str) -> tuple[str, ...]:
        """The lemmas that look most like a name that WordNet does not have."""
        last = name.casefold().rpartition(" ")[2]
        pool = [lemma for lemma in self.nouns.lemmas if lemma[:1] == last[:1] and abs(len(lemma) - len(last)) <= 2]
        return tuple(difflib.get_close_matches(last, pool, n=_NEAREST))

    def _all(self, lemmas: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(wnid for lemma in lemmas for wnid in self.nouns.senses(lemma)))

    def _below(self, senses: Sequence[str], hint: str) -> tuple[str, ...]:
        """Those of the senses that lie below a sense of the hint, or of the word before its "of"."""
        kinds = set(self.words(hint) or self.words(hint.partition(" of ")[0].rpartition(" ")[2]))
        return tuple(wnid for wnid in senses if wnid not in kinds and kinds & self.nouns.above(wnid))


def find_senses(classes: Sequence[str], nouns: Nouns, given: Mapping[str, str] | None = None) -> tuple[Sense, ...]:
    """A synset for every class.

    `given` names synsets for some classes; a class may also be a wnid itself or be written `name=wnid`. For the others
    the sense is chosen that suits the list best: the one with the largest
    sum_a i_a ln(1 + v_a) - RARITY ln(its number), over the synsets a above it, with i_a their information content
    (`Nouns.information`) and v_a the number of given and unambiguous classes below them.

    Raises:
        ValueError: classes that WordNet does not have, a wnid that it does not have, or `given` for other classes.
    """
    given = dict(given or {})
    lookup = Lookup(nouns)
    names, found = [], []
    for entry in classes:
        name, equals, wnid = entry.rpartition("=")
        if WNID.fullmatch(wnid):
            name = name if equals else _name_of(wnid, nouns)
            given.setdefault(name, wnid)
        else:
            name = entry
        names.append(name)
        found.append(("", (given[name],)) if name in given else lookup.name(name))
    _check(names, found, given, nouns, lookup)
    return _chosen(names, found, nouns)


def known_senses(classes: Sequence[str], nouns: Nouns) -> dict[int, str]:
    """The synsets of those classes that WordNet has, by the position of the class; chosen as `find_senses` does."""
    lookup = Lookup(nouns)
    found = {position: looked for position, name in enumerate(classes) if (looked := lookup.name(name))[1]}
    senses = _chosen([classes[position] for position in found], [*found.values()], nouns)
    return {position: sense.wnid for position, sense in zip(found, senses, strict=True)}


def parse_senses(text: str, classes: Sequence[str], *, where: str) -> dict[str, str]:
    """The synsets in a text: lines `name=n01234567`, or one wnid a line in the order of the classes; # begins a note.

    Raises:
        ValueError: a line is neither, both kinds are mixed, or the wnids are not as many as the classes.
    """
    lines = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line]
    if lines and all(WNID.fullmatch(line) for _, line in lines):
        if len(lines) != len(classes):
            raise ValueError(f"{where}: {len(lines)} wnids for {len(classes)} classes: write one a class.")
        return {name: wnid for name, (_, wnid) in zip(classes, lines, strict=True)}
    given: dict[str, str] = {}
    for number, line in lines:
        name, _, wnid = (part.strip() for part in line.rpartition("="))
        if not name or not WNID.fullmatch(wnid):
            raise ValueError(f"{where}, line {number}: {line!r} is no sense: write a line such as crane=n02012849.")
        if name in given:
            raise ValueError(f"{where}, line {number}: {name!r} occurs twice: remove one of the two.")
        given[name] = wnid
    return given


def senses_to_text(senses: Sequence[Sense], nouns: Nouns) -> str:
    """All choices as a text that `parse_senses` reads; a note says what was looked up and what else it may mean."""
    lines = []
    for sense in senses:
        note = describe(sense.wnid, nouns)
        if sense.looked_up and sense.looked_up != sense.name:
            note += f"; looked up {sense.looked_up!r}"
        if sense.others:
            note += "; not " + ", ".join(f"{wnid} {describe(wnid, nouns)}" for wnid in sense.others)
        lines.append(f"{sense.name}={sense.wnid}  # {note}\n")
    return "".join(lines)


def describe(wnid: str, nouns: Nouns) -> str:
    """A synset in words: "crane (wading bird)"."""
    synset = nouns.synsets[wnid]
    kind = f" ({nouns.synsets[synset.hypernyms[0]].lemmas[0]})" if synset.hypernyms else ""
    return f"{synset.lemmas[0]}{kind}"


def _chosen(names: Sequence[str], found: Sequence[tuple[str, tuple[str, ...]]], nouns: Nouns) -> tuple[Sense, ...]:
    votes = Counter(above for _, senses in found if len(senses) == 1 for above in nouns.above(senses[0]))

    def score(wnid: str, position: int) -> float:
        # summed exactly, so that the choice does not depend on the order of a set
        likeness = math.fsum(nouns.information[above] * math.log1p(votes[above]) for above in nouns.above(wnid))
        return likeness - RARITY * math.log1p(position)

    chosen = []
    for name, (words, senses) in zip(names, found, strict=True):
        numbers = range(len(senses))
        best = max(numbers, key=lambda number: (score(senses[number], number), -number)) if len(senses) > 1 else 0
        others = tuple(wnid for wnid in senses if wnid != senses[best])
        chosen.append(Sense(name=name, wnid=senses[best], looked_up=words, others=others))
    return tuple(chosen)


def _name_of(wnid: str, nouns: Nouns) -> str:
    return nouns.synsets[wnid].lemmas[0] if wnid in nouns.synsets else wnid


def _check(
    names: Sequence[str],
    found: Sequence[tuple[str, tuple[str, ...]]],
    given: Mapping[str, str],
    nouns: Nouns,
    lookup: Lookup,
) -> None:
    for name, wnid in given.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
            raise ValueError(f"a sense is given for {name!r}, which is no class: did you mean {near[0]!r}?")
        if wnid not in nouns.synsets:
            raise ValueError(f"{wnid}, given for {name!r}, is no noun of WordNet 3.0: correct the number.")
    missing = [name for name, (_, senses) in zip(names, found, strict=True) if not senses]
    if missing:
        first = missing[0]
        near = ", ".join(lookup.nearest(first)) or "none looks like it"
        more = f"; also missing: {', '.join(map(repr, missing[1:]))}" if missing[1:] else ""
        raise ValueError(
            f"WordNet 3.0 has no noun for the class {first!r} (nearest: {near}){more}: "
            f"give each a synset yourself, as {first}=n01234567."
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"the class {twice[0]!r} occurs twice: remove or rename one of the two.")
