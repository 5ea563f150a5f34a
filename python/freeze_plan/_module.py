"""The modules of a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import _native
from ._source import ModelSource, opened, request

__all__ = ["Module", "tree"]


@dataclass(frozen=True)
class Module:
    """A module of a model, as its author wrote it and as far as the file shows it."""

    path: str
    """Path from the root, such as ``layer1.0.conv1``; empty for the root."""
    cls: str
    """Class, such as ``Conv2d``, or the operator that reads its first parameter; empty where there is none."""
    parameters: tuple[str, ...]
    """Trainable initializers that it holds itself, in registration order."""
    statistics: tuple[str, ...]
    """Running statistics that it holds itself."""
    buffers: tuple[str, ...]
    """Buffers that it holds itself."""
    shared: tuple[str, ...]
    """Trainable initializers that it reads and another module holds."""
    children: tuple[Module, ...]
    """The modules that it holds."""
    text: str = ""
    """Of the root, the tree as ``freeze-plan tree`` shows it."""
    notes: tuple[str, ...] = ()
    """Of the root, what a person should know of the tree."""

    def walk(self) -> Iterator[Module]:
        """Yields the module and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def __str__(self) -> str:
        return self.text or f"{self.path or '(root)'} ({self.cls})"


def tree(model: ModelSource, *, parameter: Sequence[str] = (), buffer: Sequence[str] = ()) -> Module:
    """Returns the modules of a model with their parameters.

    ``model`` is what :func:`plan` takes. ``parameter`` and ``buffer`` are patterns that say what
    trains and what does not where the file leaves it open. ``print(tree(..))`` shows the tree.

    :raises Error: the file is no model, or a pattern matches nothing.
    """
    path, data = opened(model)
    options = {"parameter": list(parameter), "buffer": list(buffer)}
    told = json.loads(_native.tree(path, data, request(options=options)))
    return _module(told["root"], told["text"], tuple(told["notes"]))


def _module(told: dict[str, Any], text: str = "", notes: tuple[str, ...] = ()) -> Module:
    lists = {name: tuple(told[name]) for name in ("parameters", "statistics", "buffers", "shared")}
    children = tuple(_module(child) for child in told["children"])
    return Module(path=told["path"], cls=told["class"], children=children, text=text, notes=notes, **lists)
