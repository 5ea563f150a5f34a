"""A plan as an algorithm of MosaicML Composer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from composer.core import Algorithm, Event, State
from composer.loggers import Logger

from ._plan import Plan
from .torch import Freezer

__all__ = ["FreezePlan"]


class FreezePlan(Algorithm):
    """Freezes the layers of a run as a plan says: ``Trainer(.., algorithms=[FreezePlan(plan)])``.

    Acts at the start of every epoch and, where the plan changes within epochs, of every batch. Epochs after the last of
    the plan stay as that one.

    :param plan: the plan.
    :param names: names of ``state.model.named_parameters()`` by initializer name, where they are not found.
    :param remove: whether frozen parameters leave the optimizer's groups.
    :param resume_epoch: of a run that goes on from a checkpoint, the epoch, from 1, that was trained when it was written:
        what is frozen in it is frozen before Composer loads the optimizer, which has no state for it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        names: Mapping[str, str] | None = None,
        remove: bool = True,
        resume_epoch: int | None = None,
    ) -> None:
        self.plan = plan
        self._resume_epoch = resume_epoch
        self._names, self._remove = names, remove
        self._freezer: Freezer | None = None
        self._loaded: dict[str, Any] | None = None
        self._within = any(entry.changes for entry in plan)

    @property
    def find_unused_parameters(self) -> bool:
        """Tells DistributedDataParallel that some parameters have no gradient."""
        return True

    def match(self, event: Event, state: State) -> bool:
        """Returns true for the events at which something may freeze."""
        if event == Event.BEFORE_LOAD:
            return self._resume_epoch is not None
        return event in (Event.FIT_START, Event.EPOCH_START) or (self._within and event == Event.BATCH_START)

    def apply(self, event: Event, state: State, logger: Logger) -> int | None:
        """Freezes and thaws for the epoch that begins or goes on."""
        if self._freezer is None:
            self._freezer = Freezer(self.plan, state.model, state.optimizers, names=self._names, remove=self._remove)
        self._freezer.attach(state.optimizers)
        if event == Event.BEFORE_LOAD:
            if self._resume_epoch is not None:
                self._freezer.apply(min(self._resume_epoch, len(self.plan)))
            return None
        if self._loaded is not None:
            self._freezer.load_state_dict(self._loaded)
            self._loaded = None
        at = state.timestamp
        epoch = min(at.epoch.value + 1, len(self.plan))
        entry = self._freezer.apply(epoch, at.batch_in_epoch.value)
        if event != Event.BATCH_START:
            share = entry.frozen_units / len(self.plan.units) if self.plan.units else 0.0
            logger.log_metrics({"freeze_plan/units": entry.frozen_units, "freeze_plan/share": share})
        return None

    def state_dict(self) -> dict[str, Any]:
        """Returns what goes on with a checkpoint."""
        own = self._freezer.state_dict() if self._freezer is not None else None
        return {**super().state_dict(), "freezer": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self._loaded = state.get("freezer")
