"""A plan as a callback of the Trainer of Hugging Face Transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ._plan import Plan
from .torch import Freezer

__all__ = ["FreezePlan"]


class FreezePlan(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Freezes the layers of a run as a plan says: ``Trainer(.., callbacks=[FreezePlan(plan)])``.

    Acts at the start of every epoch and, where the plan changes within epochs, of every update. Epochs after the last of
    the plan stay as that one. Groups of the optimizer stay whole, so that a run goes on from any checkpoint; the rise of
    rates with ``on_return="warm-up"`` does not go on with it. More than one process needs
    ``ddp_find_unused_parameters=True``.

    :param plan: the plan.
    :param names: names of ``model.named_parameters()`` by initializer name, where they are not found.
    """

    def __init__(self, plan: Plan, *, names: Mapping[str, str] | None = None) -> None:
        self.plan = plan
        self._names = names
        self._freezer: Freezer | None = None
        self._steps = int(plan.data.get("assumed", {}).get("steps_per_epoch", 0))
        self._within = any(entry.changes for entry in plan)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Finds the parameters."""
        self._freezer = Freezer(self.plan, given["model"], given.get("optimizer"), names=self._names, remove=False)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Freezes and thaws for the epoch that begins."""
        self._apply(state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Freezes and thaws within an epoch, where the plan does."""
        if self._within:
            self._apply(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Lets all train again that did before: another run makes its optimizer of what trains."""
        if self._freezer is not None:
            self._freezer.release()
            self._freezer = None

    def _apply(self, state: TrainerState) -> None:
        if self._freezer is not None:
            # The epoch is a fraction of whole epochs: 1.5 is half of the second.
            done = round((state.epoch or 0.0) * 1e6) / 1e6
            step = round((done - int(done)) * self._steps)
            self._freezer.apply(min(int(done) + 1, len(self.plan)), step)
