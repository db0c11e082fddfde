"""Character edits of class names: the worst spelling within a Levenshtein ball, found by a greedy search."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Score = Callable[[Sequence[str], int, Sequence[str]], Tensor]
"""`score(names, which, candidates)` (C,): how bad each candidate is in the place of names[which]; it is maximised."""


@dataclass(frozen=True, kw_only=True)
class CharacterEdits:
    """The spelling with the highest score among those within Levenshtein distance `edits` of a name.

    One edit puts in, replaces or deletes one character; the swap of two neighbours is two edits, as Levenshtein counts
    it, so it takes `edits` of 2 or more. Characters come from `alphabet`. A spelling is never empty, has no space at
    its ends or beside another, is no other name of the list and none of `forbidden` (say, the words of a dictionary).

    The search is greedy, one edit after another from the best spelling so far. Each edit may score budget / edits
    candidates (rounded down). If there are more, one random candidate a position is scored first, at random positions
    where even these are too many for half of the edit's share, and the rest of the share goes to the positions whose
    candidates scored highest (after Charmer, Abad Rocamora et al. 2024). With `edits` 1 and a budget of at
    least (2 n + 1) * len(alphabet) + n for a name of n characters the result is the exact maximum."""

    edits: int = 1
    budget: int = 400
    alphabet: str = string.ascii_lowercase + " "
    forbidden: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.edits < 1 or self.budget < 2 * self.edits:
            raise ValueError(
                f"CharacterEdits has edits {self.edits} and budget {self.budget}; edits start at 1 and the budget at "
                "2 candidates an edit."
            )
        if not self.alphabet:
            raise ValueError("CharacterEdits has an empty alphabet; give it the characters that may be put in.")

    @property
    def name(self) -> str:
        return f"characters-{self.edits}"

    def __call__(self, names: Sequence[str], score: Score, *, generator: torch.Generator) -> tuple[str, ...]:
        """All names misspelled, one after another: each search sees the names before it as they were left.

        Raises:
            ValueError: see `worst`.
        """
        edited = list(names)
        for which in range(len(edited)):
            edited[which] = self.worst(edited, which, score, generator=generator)
        return tuple(edited)

    def worst(self, names: Sequence[str], which: int, score: Score, *, generator: torch.Generator) -> str:
        """The worst spelling of names[which], the others being as they are; the name itself if nothing is worse.

        Raises:
            ValueError: `which` is no place in `names`, or the scores are not one finite number a candidate.
        """
        if not 0 <= which < len(names):
            raise ValueError(f"which is {which}; there are {len(names)} names: give a number from 0.")
        found = _Found(names, which, score, self.forbidden, self.edits)
        share = self.budget // self.edits
        for cost in range(self.edits):
            here = found.at[cost]
            if here is not None:
                self._edit(found, here[1], cost, share, generator)
        return max((best for best in found.at if best), key=lambda best: best[0])[1]  # the fewest edits at a tie

    def _edit(self, found: _Found, here: str, cost: int, share: int, generator: torch.Generator) -> None:
        """Score candidates one edit (a swap: two) further than `here`, the best spelling at `cost` edits."""
        places = [[(text, cost + 1) for text in place] for place in _edits(here, self.alphabet)]
        if cost + 2 <= self.edits:
            places += [[(text, cost + 2)] for text in _swaps(here)]
        places = [fresh for place in places if (fresh := found.fresh(place))]
        if len({text for place in places for text, _ in place}) <= share:
            found.look([candidate for place in places for candidate in place])
            return
        device = generator.device
        order = torch.randperm(len(places), generator=generator, device=device).tolist()[: share // 2]
        picks = torch.rand(len(order), generator=generator, device=device).tolist()
        probes = [places[place][int(pick * len(places[place]))] for place, pick in zip(order, picks, strict=True)]
        found.look(probes)
        ranked = sorted(zip(probes, order, strict=True), key=lambda probed: -found.seen[probed[0][0]])
        rest = found.fresh([candidate for _, place in ranked for candidate in places[place]])
        left = share - len({text for text, _ in probes})
        found.look(rest[:left])


class _Found:
    """What the search knows: the score of every spelling seen, and the best (score, spelling) at each number of
    edits, if there is one."""

    def __init__(self, names: Sequence[str], which: int, score: Score, forbidden: frozenset[str], edits: int) -> None:
        self.names, self.which, self.score = names, which, score
        self.barred = forbidden | {name for i, name in enumerate(names) if i != which}
        self.seen: dict[str, float] = {}
        self.at: list[tuple[float, str] | None] = [None] * (edits + 1)
        self.look([(names[which], 0)])

    def fresh(self, candidates: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those that are allowed and not seen yet, each once."""
        return [
            (text, cost)
            for text, cost in dict(candidates).items()
            if text not in self.seen and text not in self.barred and text and " ".join(text.split()) == text
        ]

    def look(self, candidates: Sequence[tuple[str, int]]) -> None:
        """Score candidates (spelling, edits) and remember the best at each number of edits."""
        unique = dict(candidates)
        if not unique:
            return
        values = self.score(self.names, self.which, tuple(unique))
        if values.shape != (len(unique),) or not bool(values.isfinite().all()):
            raise ValueError(
                f"the score of {len(unique)} spellings of {self.names[self.which]!r} has shape {tuple(values.shape)}; "
                "it must be one finite number a spelling."
            )
        for (text, cost), value in zip(unique.items(), values.tolist(), strict=True):
            self.seen[text] = value
            best = self.at[cost]
            if best is None or value > best[0]:
                self.at[cost] = (value, text)


def _edits(text: str, alphabet: str) -> list[list[str]]:
    """All spellings one edit away, by position: between the characters (put in) and at them (replace, delete)."""
    places = []
    for i in range(len(text) + 1):
        places.append([text[:i] + letter + text[i:] for letter in alphabet])
        if i < len(text):
            places.append([text[:i] + letter + text[i + 1 :] for letter in ("", *alphabet)])
    return places


def _swaps(text: str) -> list[str]:
    return [text[:i] + text[i + 1] + text[i] + text[i + 2 :] for i in range(len(text) - 1)]
