"""docs/data.md and docs/protocols.md say what the catalogue and the protocols say."""

from __future__ import annotations

from pathlib import Path

from robustree.auditing.protocols import PROTOCOLS
from robustree.cli.data import table_of_data_sets
from robustree.data import CATALOG

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_the_page_of_data_sets_holds_the_catalogue() -> None:
    page = (DOCS / "data.md").read_text(encoding="utf-8")
    assert table_of_data_sets() in page
    for record in CATALOG.values():
        assert not record.traps or f"- **{record.name}**: {record.traps}\n" in page


def test_the_page_of_protocols_holds_every_published_average() -> None:
    page = (DOCS / "protocols.md").read_text(encoding="utf-8")
    for protocol in PROTOCOLS.values():
        assert f"\n## {protocol.name}\n\n{protocol.about}. {protocol.differs}\n" in page
        for row in protocol.published:
            assert f"| {row.method} | {row.model} | {row.attack} | {row.figures['average']:.2f} |\n" in page
            assert row.source in page
