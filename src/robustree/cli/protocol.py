"""A protocol on the command line: which options it sets, and its published figures in a table of their own."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from robustree.auditing.protocols import PROTOCOLS, Protocol, Published
from robustree.data import Record, named_record


def chosen_protocol(name: str, data: str) -> tuple[Protocol, Record]:
    """The protocol of that name and the record of the data.

    Raises:
        ValueError: the protocol does not audit these data.
    """
    protocol, (record, _) = PROTOCOLS[name], named_record(data)
    if record is None or record.name not in protocol.data_sets:
        raise ValueError(
            f"the protocol {name} audits {', '.join(protocol.data_sets)}, not {data!r}: give --data NAME=PATH with one "
            "of these, or leave --protocol out."
        )
    return protocol, record


def chosen_eps(protocol: Protocol, asked: float | None) -> float:
    """The eps that was asked for, or the protocol's first one where none was.

    Raises:
        ValueError: the protocol has no such eps.
    """
    if asked is None or asked in protocol.eps:
        return asked or protocol.eps[0]
    allowed = " or ".join(f"{value * 255:g}/255" for value in protocol.eps)
    raise ValueError(
        f"the protocol {protocol.name} has eps {allowed}, and --threat.eps is {asked * 255:g}/255: give one of its, or "
        "leave --threat.eps out."
    )


def print_published(protocol: Protocol, record: Record, console: Console) -> None:
    """Print what was published under a protocol, for this data set where it is told, otherwise on average."""
    rows = [row for row in protocol.published if record.name in row.figures] or list(protocol.published)
    single = record.name in rows[0].figures
    what = record.name if single else f"average over {rows[0].average_of}"
    console.print(f"published under the protocol {protocol.name}: {what}, not measured here")
    table = Table()
    for heading in ("method", "model", "attack"):
        table.add_column(heading)
    table.add_column("% right", justify="right")
    for row in rows:
        table.add_row(row.method, row.model, row.attack, f"{_figure(row, record):.2f}".rstrip("0").rstrip("."))
    console.print(table)
    console.print("source  " + "; ".join(dict.fromkeys(row.source for row in rows)))
    console.print(f"differs  {protocol.differs}")


def _figure(row: Published, record: Record) -> float:
    return row.figures.get(record.name, row.figures["average"])
