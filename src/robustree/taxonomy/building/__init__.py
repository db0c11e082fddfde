"""Builders of label trees: from WordNet's nouns, from text embeddings, from a language model."""
