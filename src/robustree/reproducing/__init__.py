"""Reproducing: the paper's tables as recipes, what their rows take, and published beside own figures."""

from robustree.reproducing.scales import EMBEDDED, PAPER, SCALES, Scale
from robustree.reproducing.tables import TABLES, Backbone, Candidate, Evaluation, PaperTable, Row

__all__ = [
    "EMBEDDED",
    "PAPER",
    "SCALES",
    "TABLES",
    "Backbone",
    "Candidate",
    "Evaluation",
    "PaperTable",
    "Row",
    "Scale",
]
