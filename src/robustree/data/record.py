"""What is known about a data set without its images: one record each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from robustree.data.images import AuditImages, TrainingImages
from robustree.taxonomy import SHIPPED_TREES, Forest, shipped_forest


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Images that are part of the package: class names in label order, and images at a resolution."""

    classes: Callable[[], tuple[str, ...]]
    training: Callable[[int], TrainingImages]
    audit: Callable[[int], AuditImages]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A data set by name.

    `images`: of the audited split. `native`: the side at which small images are attacked, resizing being part of the
    model; None: the model's. `webdataset`, `parquet`: hub ids, None where there is none. `prompt`: the one prompt of
    TeCoA's protocol. `templates`: the file of the prompt ensemble. `traps`: what to know before figures are compared.
    `within`: the record of which this one has all or some classes, and whose trees it takes. `class_list`: the list of
    class names, None for the one of its own name.
    """

    name: str
    about: str
    images: int
    split: str = "test"
    native: int | None = None
    webdataset: str | None = None
    parquet: str | None = None
    licence: str
    prompt: str = "This is a photo of a {}"
    templates: str | None = None
    traps: str = ""
    within: str | None = None
    class_list: str | None = None
    embedded: Embedded | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.embedded.classes() if self.embedded else _lines("classes", self.class_list or self.name)

    @property
    def trees(self) -> tuple[str, ...]:
        """The shipped trees, by name."""
        return SHIPPED_TREES.get(self.within or self.name, ())

    @property
    def ensemble(self) -> tuple[str, ...]:
        """The templates whose texts are averaged; `prompt` alone where no ensemble is published."""
        return _lines("templates", self.templates) if self.templates else (self.prompt,)

    def forest(self, trees: tuple[str, ...] | None = None) -> Forest:
        """The classes under some of the shipped trees, all for None.

        Raises:
            ValueError: there is no such tree, or no tree of this data set is shipped.
        """
        if self.within is None:
            return shipped_forest(self.name, self.classes, trees)
        return shipped_forest(self.within, _lines("classes", self.within), trees).restrict(self.classes)


@cache
def _lines(folder: str, name: str) -> tuple[str, ...]:
    text = files("robustree.data").joinpath(folder, f"{name}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
