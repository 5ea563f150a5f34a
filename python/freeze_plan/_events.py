"""What a run of ``freeze-plan train`` has written, as rows and as columns."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ._error import Error

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped, import-not-found, unused-ignore]

__all__ = ["Events", "Table", "events"]

Event: TypeAlias = "dict[str, Any]"


class Table(dict[str, list[Any]]):
    """Columns by name, all of one length. What an event does not say is ``None``.

    ``polars.DataFrame(table, strict=False)`` takes it as it is.
    """

    @property
    def rows(self) -> int:
        """The length of the columns."""
        return len(next(iter(self.values()), ()))

    def to_pandas(self) -> pandas.DataFrame:
        """Returns the table as a data frame. Needs ``pandas``."""
        import pandas  # type: ignore[import-untyped, import-not-found, unused-ignore]

        return pandas.DataFrame(dict(self))


class Events(list[Event]):
    """The events of a run, in the order in which they came: each is a dict with at least ``event`` and ``time``.

    ``time`` is in seconds since the start.
    """

    def of(self, kind: str) -> Events:
        """Returns the events of a kind, such as ``"step"``; none where there are none."""
        return Events(event for event in self if event["event"] == kind)

    def kinds(self) -> tuple[str, ...]:
        """Returns the kinds of events that there are, in the order in which they first came."""
        return tuple(dict.fromkeys(event["event"] for event in self))

    def table(self, kind: str) -> Table:
        """Returns the events of a kind as columns; what is nested is ``outer.inner``.

        :raises Error: there are no events of this kind.
        """
        rows = [dict(_flat(event)) for event in self.of(kind)]
        if not rows:
            raise Error(f"there are no events {kind!r}", f"there are {', '.join(self.kinds()) or 'none'}")
        names = dict.fromkeys(name for row in rows for name in row if name != "event")
        return Table({name: [row.get(name) for row in rows] for name in names})

    def to_pandas(self, kind: str) -> pandas.DataFrame:
        """Returns the events of a kind as a data frame. Needs ``pandas``."""
        return self.table(kind).to_pandas()


def events(run: str | os.PathLike[str]) -> Events:
    """Reads the events of a run: its folder, or its ``events.jsonl``.

    A run that still goes on may be read; a last line that is not yet written as a whole is left out.

    :raises Error: there is no such file, or a line is no event.
    """
    path = Path(run)
    if path.is_dir():
        path /= "events.jsonl"
    try:
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        lines = whole.decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Error(f"cannot read {path}: {error}", "the folder of a run holds events.jsonl", "bad-input") from error
    return Events(_event(path, number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _event(path: Path, number: int, line: str) -> Event:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise Error(f"{path}, line {number}: {error}", kind="bad-input") from None
    if not (isinstance(event, dict) and isinstance(event.get("event"), str)):
        raise Error(f"{path}, line {number}: expected an object with the key \"event\"", kind="bad-input")
    return event


def _flat(event: Event, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in event.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
