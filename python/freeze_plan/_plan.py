"""Plans: which parameters are frozen in which epoch, and what that is predicted to save."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import _native
from ._error import Error
from ._source import ModelSource, opened, request, whole

if TYPE_CHECKING:
    import torch as _torch

    from .torch import Optimizers

__all__ = ["Epoch", "Final", "Plan", "Policy", "Predicted", "Summary", "Unit", "plan", "policies"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Predicted:
    """What a step is predicted to cost. A multiply-add is two flops."""

    step_cost: float
    """Flops of a step relative to one with nothing frozen."""
    backward_flops: int
    """Flops of the backward pass of one step."""
    state_bytes: int
    """Bytes of gradients and optimizer slots."""
    forward_flops: int = 0
    input_grad_flops: int = 0
    weight_grad_flops: int = 0
    gradient_bytes: int = 0
    slot_bytes: int = 0
    activation_bytes: int = 0
    """Bytes that the forward pass makes and the backward pass reads."""
    cached_step_cost: float = 0.0
    """As ``step_cost``, with a cache of what the frozen prefix computes."""
    cut_bytes: int = 0
    """Bytes for each sample that such a cache holds."""


@dataclass(frozen=True)
class Epoch:
    """What is frozen while an epoch trains, or from some step of it on."""

    epoch: int
    """Epoch, from 1."""
    frozen: tuple[str, ...]
    """Names of the frozen initializers, in the order of the units."""
    frozen_units: int
    """Units of which every parameter is frozen."""
    fraction: float
    """The schedule's value in [0, 1], before it is turned into a count."""
    lr_scale: Mapping[str, float]
    """Factors on the learning rate by initializer name; 1 where absent."""
    predicted: Predicted
    """What a step is predicted to cost."""
    statistics: tuple[str, ...] = ()
    """Running statistics that stay and are normalized by in place of those of the batch."""
    dropout_off: tuple[str, ...] = ()
    """Outputs of Dropout nodes that pass their input on."""
    after: int = 0
    """Steps of the epoch that come before; 0 but for entries of ``changes``."""
    changes: tuple[Epoch, ...] = ()
    """What holds instead from later steps of the epoch on."""

    def at(self, step: int) -> Epoch:
        """Returns the entry that holds after ``step`` steps of the epoch."""
        held = [change for change in self.changes if change.after <= step]
        return held[-1] if held else self


@dataclass(frozen=True)
class Final:
    """The decision after the last epoch, which trains nothing."""

    frozen_units: int
    fraction: float
    frozen: tuple[str, ...]


@dataclass(frozen=True)
class Unit:
    """What a policy freezes as one."""

    index: int
    """Position, from 0, from the input side."""
    path: str
    """Module path."""
    cls: str
    """Class of the module, or operator."""
    parameters: tuple[str, ...]
    """Names of its initializers."""
    elements: int
    """Elements of those."""
    state_bytes: int
    """Bytes of gradients and optimizer slots while it trains."""
    flops: Mapping[str, int]
    """Flops of one step with nothing frozen: ``forward``, ``input_grad``, ``weight_grad``."""
    shared: tuple[str, ...] = ()
    """Initializers of other units that it uses too."""


@dataclass(frozen=True)
class Summary:
    """A plan as a whole."""

    cost_ratio: float
    """Mean of ``step_cost`` over the epochs."""
    ceiling: float
    """The largest speedup that the plan can give."""
    cached_cost_ratio: float = 1.0
    cached_ceiling: float = 1.0
    pays: bool = False
    """Whether the schedule can pay: it saves 2 % of the compute or more."""
    verdict: str = ""
    """What the schedule can save at most, or why it cannot pay, in one sentence."""
    keeps_backward_alive: tuple[str, ...] = ()
    """Trainable parameters that keep the backward pass alive below frozen ones."""
    notes: tuple[str, ...] = ()
    """Sentences for a person."""

    def __str__(self) -> str:
        return "\n".join([self.verdict, *(f"note: {note}" for note in self.notes)]).strip()


@dataclass(frozen=True)
class Policy:
    """A freezing policy that can be asked for by name."""

    name: str
    about: str
    """What it does, in one sentence."""
    settings: tuple[str, ...]
    """Names of its settings."""
    card: str = field(repr=False)
    """Idea, formula, settings with ranges and defaults, source, known negative results."""


class Plan:
    """Which parameters are frozen in which epoch.

    Iterates over its epochs. Made by :func:`plan`, :meth:`load` or :meth:`from_json`; two plans are equal when their
    plan files are.
    """

    epochs: tuple[Epoch, ...]
    """One entry for each epoch, from epoch 1."""
    units: tuple[Unit, ...]
    """What the policy freezes as one, from the input side."""
    summary: Summary
    """What the plan saves, and what to know of it."""
    final: Final
    """The decision after the last epoch."""
    data: dict[str, Any]
    """The whole plan file."""

    def __init__(self, text: str, name: str = "plan") -> None:
        self._text = _native.check(name, text)
        self.data = json.loads(self._text)
        self.units = tuple(_unit(unit) for unit in self.data["units"])
        self.epochs = tuple(_epoch(epoch) for epoch in self.data["epochs"])
        self.summary = _known(Summary, self.data["summary"])
        self.final = _known(Final, self.data["final"])

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Reads the text of a plan file.

        :raises Error: it is no plan, or contradicts itself.
        """
        return cls(text)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Reads a plan file, such as ``freeze-plan MODEL --format json`` writes, or the ``plan.json`` in the folder of a run.

        :raises Error: the file cannot be read, is no plan, or contradicts itself.
        """
        if os.path.isdir(path):
            path = os.path.join(path, "plan.json")
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise Error(f"cannot read {os.fspath(path)}: {error}", kind="bad-input") from error
        return cls(text, os.fspath(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan file.

        :raises Error: the file cannot be written.
        """
        try:
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                file.write(self._text)
        except OSError as error:
            raise Error(f"cannot write {os.fspath(path)}: {error}", kind="bad-input") from error

    def to_json(self) -> str:
        """Returns the text of the plan file."""
        return self._text

    def to_html(self) -> str:
        """Returns the plan as one HTML page that fetches nothing, as ``freeze-plan MODEL --format html`` writes it."""
        return _native.page(self._text)

    @property
    def policy(self) -> str:
        """The name of the policy."""
        return str(self.data["policy"]["name"])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the policy and the other options of the plan."""
        return {name: value for name, value in self.data["policy"].items() if name != "name"}

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all trainable initializers, in the order of the units."""
        return tuple(name for unit in self.units for name in unit.parameters)

    def frozen(self, epoch: int, step: int = 0) -> frozenset[str]:
        """Returns the names of what is frozen in an epoch, from 1, after ``step`` of its steps.

        :raises Error: the plan has no such epoch.
        """
        return frozenset(self.at(epoch, step).frozen)

    def at(self, epoch: int, step: int = 0) -> Epoch:
        """Returns the entry that holds in an epoch, from 1, after ``step`` of its steps.

        :raises Error: the plan has no such epoch.
        """
        epoch, step = whole("epoch", epoch), whole("step", step)
        if not 1 <= epoch <= len(self.epochs):
            raise Error(f"epoch is {epoch}, expected 1 to {len(self.epochs)}", "epochs count from 1")
        return self.epochs[epoch - 1].at(step)

    def apply(
        self,
        model: _torch.nn.Module,
        optimizer: Optimizers | None,
        epoch: int,
        step: int = 0,
        *,
        names: Mapping[str, str] | None = None,
    ) -> Epoch:
        """Freezes and thaws a PyTorch module as the plan says for an epoch, from 1.

        Call it at the start of every epoch; see :class:`freeze_plan.torch.Freezer`, which this keeps for the model.
        ``names`` maps initializer names to names of ``model.named_parameters()`` where they differ by more than a
        prefix. Needs ``torch``.

        :raises Error: an initializer of the plan has no parameter in the model; the nearest names are told.
        """
        from .torch import freezer

        return freezer(self, model, optimizer, names).apply(epoch, step)

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self.epochs)

    def __len__(self) -> int:
        return len(self.epochs)

    @overload
    def __getitem__(self, index: int) -> Epoch: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Epoch, ...]: ...

    def __getitem__(self, index: int | slice) -> Epoch | tuple[Epoch, ...]:
        """Returns an entry by its position, from 0; :meth:`at` takes the epoch."""
        return self.epochs[index]

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Plan) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (self._text,)

    def __repr__(self) -> str:
        counts = [epoch.frozen_units for epoch in self.epochs]
        shown = ", ".join(map(str, counts[:20])) + (", .." if len(counts) > 20 else "")
        return (
            f"<Plan of {self.data['model']['file']!r}: {self.policy}, {len(self.epochs)} epochs, "
            f"{len(self.units)} units, frozen {shown}>"
        )

    def __str__(self) -> str:
        lines = [f"{self.data['model']['file']}: {self.policy}, {len(self.epochs)} epochs, {len(self.units)} units"]
        for (units, frozen, _), same in groupby(self.epochs, lambda e: (e.frozen_units, len(e.frozen), set(e.frozen))):
            run = list(same)
            numbers = f"{run[0].epoch}" if len(run) == 1 else f"{run[0].epoch} to {run[-1].epoch}"
            more = ", more within" if any(epoch.changes for epoch in run) else ""
            cost = run[0].predicted.step_cost
            lines.append(f"  epoch {numbers}: {units} units frozen, {frozen} parameters{more}; a step costs {cost:.1%}")
        return "\n".join([*lines, str(self.summary)])

    def _repr_html_(self) -> str:
        page = escape(self.to_html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:40em;border:0" sandbox="allow-scripts"></iframe>'


def plan(
    model: ModelSource,
    epochs: int = 10,
    *,
    policy: str = "linear",
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    unit: str | None = None,
    freeze: Sequence[str] = (),
    keep: Sequence[str] = (),
    parameter: Sequence[str] = (),
    buffer: Sequence[str] = (),
    steps_per_epoch: int | None = None,
    slots: int | None = None,
    **settings: Any,
) -> Plan:
    """Plans the freezing of a model over a run. No weight is used, and nothing runs.

    :param model: a path, bytes, a file, an ``onnx.ModelProto``, or what ``torch.onnx.export`` returns; a path may also be
        a folder of ONNX Runtime's training artifacts.
    :param epochs: epochs of the run.
    :param policy: who decides; :func:`policies` lists the names.
    :param batch: batch size that costs are counted for; 1 by default.
    :param shapes: shapes of inputs by name, for costs.
    :param unit: what freezes as one: ``"leaf"``, ``"composer"``, ``"block"`` or ``"parameter"``; by default what the
        policy is made for, most often leaf modules.
    :param freeze: patterns on unit paths and parameter names: frozen in all epochs.
    :param keep: patterns of what is never frozen.
    :param parameter: patterns of what trains, whatever the file looks like.
    :param buffer: patterns of what nothing trains.
    :param steps_per_epoch: steps of an epoch, for policies that act within one.
    :param slots: tensors that the optimizer keeps for each parameter: SGD 0, with momentum 1 (the default), Adam 2.
    :param settings: settings of the policy, such as ``freeze_start=0.25``, and ``batch_norm``, ``dropout``,
        ``on_return``, ``warm_up_steps`` as in the table ``[freeze]`` of a job.
    :raises Error: the file is no model, an option is out of range, or a pattern matches nothing.
    """
    path, data = opened(model)
    lists = {"freeze": freeze, "keep": keep, "parameter": parameter, "buffer": buffer}
    for name, patterns in lists.items():
        if isinstance(patterns, str) or not isinstance(patterns, Iterable):
            raise Error(f"{name} is {patterns!r}, expected a list of patterns", f"{name}=[{str(patterns)!r}]")
    counts = {"epochs": epochs, "batch": batch, "steps_per_epoch": steps_per_epoch, "slots": slots}
    numbers = {name: whole(name, count) for name, count in counts.items() if count is not None}
    options = {"policy": policy, **{name: list(patterns) for name, patterns in lists.items()}, **settings}
    if unit is not None:
        options["unit"] = unit
    if not isinstance(shapes or {}, Mapping):
        raise Error(f"shapes is {shapes!r}, expected shapes by name of the input", "shapes={'x': [8, 3, 224, 224]}")
    sizes = [(name, [whole(f"shapes[{name!r}]", n) for n in shape]) for name, shape in (shapes or {}).items()]
    asked = request(**numbers, shapes=sizes, options=options)
    return Plan(_native.plan(path, data, asked))


def policies() -> tuple[Policy, ...]:
    """Returns the freezing policies."""
    return tuple(_known(Policy, told) for told in json.loads(_native.describe_policies()))


def _known(kind: type[_T], told: Mapping[str, Any]) -> _T:
    """Makes a data class of the keys that it has; lists become tuples."""
    names = {known.name for known in fields(kind)}  # type: ignore[arg-type]
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return kind(**{name: value for name, value in given.items() if name in names})


def _unit(told: Mapping[str, Any]) -> Unit:
    return _known(Unit, {**told, "cls": told["class"]})


def _epoch(told: Mapping[str, Any]) -> Epoch:
    predicted = _known(Predicted, told["predicted"])
    changes = [_epoch(change) for change in told.get("changes", [])]
    return _known(Epoch, {**told, "predicted": predicted, "changes": changes})
