"""The look of the page: the palette and the parts of the report, and gradio's controls in its colours."""

from __future__ import annotations

from robustree.auditing.report.page import HERE as REPORT
from robustree.demo.views import HERE

_BOTH = {
    "body_background_fill": "var(--paper)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--soft)",
    "background_fill_primary": "var(--card)",
    "background_fill_secondary": "var(--paper)",
    "border_color_primary": "var(--line)",
    "border_color_accent": "var(--accent)",
    "block_background_fill": "transparent",
    "block_border_color": "var(--line)",
    "block_label_background_fill": "var(--card)",
    "block_label_text_color": "var(--soft)",
    "block_title_text_color": "var(--ink)",
    "input_background_fill": "var(--card)",
    "input_border_color": "var(--line)",
    "slider_color": "var(--accent)",
    "button_primary_background_fill": "var(--accent)",
    "button_primary_background_fill_hover": "var(--accent)",
    "button_primary_text_color": "var(--paper)",
    "button_secondary_background_fill": "var(--card)",
    "button_secondary_background_fill_hover": "var(--grid)",
    "button_secondary_text_color": "var(--ink)",
    "button_secondary_border_color": "var(--line)",
    "checkbox_background_color": "var(--card)",
    "checkbox_background_color_selected": "var(--accent)",
    "checkbox_border_color_selected": "var(--accent)",
    "checkbox_label_background_fill": "var(--card)",
    "checkbox_label_background_fill_selected": "var(--card)",
    "checkbox_label_text_color": "var(--ink)",
    "checkbox_label_text_color_selected": "var(--ink)",
    "link_text_color": "var(--accent)",
    "color_accent_soft": "var(--grid)",
}
THEME_VALUES = _BOTH | {f"{name}_dark": value for name, value in _BOTH.items()} | {"color_accent": "var(--accent)"}
"""Colours of gradio's controls; light and dark are the palette's own affair."""


def head() -> str:
    """What goes into the page's head: the report's palette, its parts inside .paper, and the page's own rules."""
    palette, parts = ((REPORT / name).read_text(encoding="utf-8") for name in ("palette.css", "report.css"))
    own = (HERE / "demo.css").read_text(encoding="utf-8")
    return f"<style>\n{palette}.paper {{\n{parts}}}\n{own}</style>"
