"""Where embeddings live: the Poincare ball and its flat rivals, and the margins that each allows."""

from __future__ import annotations

from robustree.geometry.margin import (
    MarginCurve,
    class_dot_margin,
    class_margin,
    margin_curve,
    numeric_margin,
    numeric_two_class_margin,
    orthoplex_dot_margin,
    orthoplex_margin,
    simplex_dot_margin,
    simplex_margin,
    tangent_margin,
    two_class_dot_margin,
    two_class_margin,
)
from robustree.geometry.poincare import (
    bound_norm,
    depth,
    distance,
    einstein_midpoint,
    exp0,
    hyperplane_certificate,
    log0,
    pairwise_distance,
)
from robustree.geometry.space import Euclidean, Poincare, Space, Sphere

__all__ = [
    "Euclidean",
    "MarginCurve",
    "Poincare",
    "Space",
    "Sphere",
    "bound_norm",
    "class_dot_margin",
    "class_margin",
    "depth",
    "distance",
    "einstein_midpoint",
    "exp0",
    "hyperplane_certificate",
    "log0",
    "margin_curve",
    "numeric_margin",
    "numeric_two_class_margin",
    "orthoplex_dot_margin",
    "orthoplex_margin",
    "pairwise_distance",
    "simplex_dot_margin",
    "simplex_margin",
    "tangent_margin",
    "two_class_dot_margin",
    "two_class_margin",
]
