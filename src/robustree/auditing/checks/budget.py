"""How much work the checks may do."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The size of the checks; the defaults take a small part of an audit's time.

    `images` are spread evenly over the classes. `steps`: of the checks' own attacks. `draws`: of random noise.
    `queries`: of the black-box attack. `aims`: how many nodes of the coarsest level the unbounded attack is aimed at.
    `every_level`: all levels of all trees instead of the leaves and the coarsest level of the first tree.
    `cascades`: double the steps of whole cascades instead of their first stage.

    Raises:
        ValueError: a number below 1.
    """

    images: int = 48
    steps: int = 20
    draws: int = 100
    queries: int = 300
    aims: int = 2
    every_level: bool = False
    cascades: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1 and field.type == "int":
                raise ValueError(
                    f"the budget has {field.name} {getattr(self, field.name)}; it counts from 1: give a positive "
                    "number, or leave the checks out."
                )

    @staticmethod
    def full() -> Budget:
        """As a paper would run them: 500 images, 100 steps, 10 000 draws, 5000 queries, every level and node."""
        return Budget(images=500, steps=100, draws=10_000, queries=5000, aims=10_000, every_level=True, cascades=True)
