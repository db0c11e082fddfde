"""Vision-language models behind one shape: pixels in [0, 1] in, embeddings out."""

from robustree.models.encoder import ImageEncoder, Preprocessing, VisionLanguageModel
from robustree.models.huggingface import adapt
from robustree.models.loading import load

__all__ = ["ImageEncoder", "Preprocessing", "VisionLanguageModel", "adapt", "load"]
