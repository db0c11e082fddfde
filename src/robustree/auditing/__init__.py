"""Auditing: rows of predictions under attack, the figures made from them, and their report."""
