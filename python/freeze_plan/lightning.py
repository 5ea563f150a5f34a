"""A plan as a callback of Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    from pytorch_lightning import Callback, LightningModule, Trainer  # type: ignore[assignment]

from ._error import Error
from ._plan import Plan
from .torch import Freezer

__all__ = ["FreezePlan"]


class FreezePlan(Callback):
    """Freezes the layers of a run as a plan says: ``Trainer(.., callbacks=[FreezePlan(plan)])``.

    Acts at the start of every epoch and, where the plan changes within epochs, of every batch. Epochs after the last of
    the plan stay as that one. A run that goes on from a checkpoint freezes what was frozen before the optimizer is
    restored. Where the frozen set grows or shrinks under DistributedDataParallel, its strategy needs
    ``find_unused_parameters=True``.

    :param plan: the plan.
    :param names: names of ``pl_module.named_parameters()`` by initializer name, where they are not found.
    :param remove: whether frozen parameters leave the optimizers' groups.
    """

    def __init__(self, plan: Plan, *, names: Mapping[str, str] | None = None, remove: bool = True) -> None:
        self.plan = plan
        self._names, self._remove = names, remove
        self._freezer: Freezer | None = None
        self._at = (1, 0)
        self._loaded: dict[str, Any] | None = None
        self._within = any(entry.changes for entry in plan)

    @property
    def state_key(self) -> str:
        """The key of the callback in a checkpoint."""
        return "freeze_plan.FreezePlan"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freezes what was frozen when the checkpoint was written, if the run goes on from one."""
        self._freezer = Freezer(self.plan, pl_module, trainer.optimizers, names=self._names, remove=self._remove)
        if self._loaded is not None:
            epoch, step = self._loaded["at"]
            self._apply(trainer, epoch, step)
            self._freezer.load_state_dict(self._loaded["freezer"])
            self._loaded = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freezes and thaws for the epoch that begins."""
        entry = self._apply(trainer, trainer.current_epoch + 1, 0)
        pl_module.log("freeze_plan/units", float(entry.frozen_units))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Freezes and thaws within an epoch, where the plan does."""
        if self._within:
            self._apply(trainer, trainer.current_epoch + 1, batch_idx)

    def state_dict(self) -> dict[str, Any]:
        """Returns what goes on with a checkpoint."""
        own = self._freezer.state_dict() if self._freezer is not None else {"kept": {}, "returned": {}}
        return {"at": self._at, "freezer": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self._loaded = state_dict

    def _apply(self, trainer: Trainer, epoch: int, step: int) -> Any:
        if self._freezer is None:
            raise Error("the callback is used before the fit begins", kind="internal")
        self._freezer.attach(trainer.optimizers)
        self._at = (min(epoch, len(self.plan)), step)
        return self._freezer.apply(*self._at)
