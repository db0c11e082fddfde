"""Attack, harden and audit CLIP-like models at every level of a label tree."""

__version__ = "0.1.0"
