"""Learning rates of single parameters: factors of the plan, and the rise of what trains again."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer


class Rates:
    """Splits the groups of optimizers by rate while they step, and only then.

    Groups stay as they are for everybody else, so schedules of the learning rate go on.
    """

    def __init__(self, warm_up_steps: int | None) -> None:
        self._warm_up_steps = None if warm_up_steps is None else max(warm_up_steps, 1)
        self._factors: dict[nn.Parameter, float] = {}
        self._returned: dict[nn.Parameter, int] = {}
        self._optimizers: tuple[weakref.ref[Optimizer], ...] = ()
        self._hooks: list[Any] = []
        self._whole: dict[int, list[dict[str, Any]]] = {}

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Takes other optimizers than before."""
        given = tuple(optimizers)
        if len(given) == len(self._optimizers) and all(a is b() for a, b in zip(given, self._optimizers, strict=True)):
            return
        for hook in self._hooks:
            hook.remove()
        self._optimizers, self._hooks = tuple(map(weakref.ref, given)), []
        for optimizer in given:
            self._hooks.append(optimizer.register_step_pre_hook(self._split))
            self._hooks.append(optimizer.register_step_post_hook(self._join))

    def scale(self, factors: Mapping[nn.Parameter, float]) -> None:
        """Sets the factors of the plan; 1 where absent."""
        self._factors = {own: factor for own, factor in factors.items() if factor != 1.0}

    def returned(self, parameters: Iterable[nn.Parameter]) -> None:
        """Lets the rates of parameters rise anew, where the plan asks for that."""
        if self._warm_up_steps is not None:
            self._returned.update((own, 0) for own in parameters)

    def state(self, names: Mapping[int, str]) -> dict[str, int]:
        """Returns the steps since each parameter came back."""
        return {names[id(own)]: steps for own, steps in self._returned.items()}

    def load(self, returned: Mapping[nn.Parameter, int]) -> None:
        """Goes on from what was saved."""
        self._returned = dict(returned)

    def _factor(self, own: nn.Parameter) -> float:
        factor = self._factors.get(own, 1.0)
        if own in self._returned and self._warm_up_steps is not None:
            factor *= min((self._returned[own] + 1) / self._warm_up_steps, 1.0)
        return factor

    def _split(self, optimizer: Optimizer, *_: Any) -> None:
        self._restore(optimizer)
        if not (self._factors or self._returned):
            return
        self._whole[id(optimizer)] = optimizer.param_groups
        optimizer.param_groups = [part for group in optimizer.param_groups for part in self._parts(group)]

    def _parts(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        by_factor: dict[float, list[nn.Parameter]] = {}
        for own in group["params"]:
            by_factor.setdefault(self._factor(own), []).append(own)
        return [{**group, "params": owns, "lr": group["lr"] * factor} for factor, owns in by_factor.items()]

    def _join(self, optimizer: Optimizer, *_: Any) -> None:
        self._restore(optimizer)
        if self._warm_up_steps is None:
            return
        stepped = {id(own) for group in optimizer.param_groups for own in group["params"]}
        for own, steps in list(self._returned.items()):
            if id(own) in stepped:
                self._returned[own] = steps + 1
                if steps + 1 >= self._warm_up_steps:
                    del self._returned[own]

    def _restore(self, optimizer: Optimizer) -> None:
        """Puts the whole groups back, with what the step has written beside the rate."""
        whole = self._whole.pop(id(optimizer), None)
        if whole is None:
            return
        parts = iter(optimizer.param_groups)
        for group in whole:
            left = len(group["params"])
            while left > 0:
                part = next(parts)
                left -= len(part["params"])
                group.update((key, value) for key, value in part.items() if key not in ("params", "lr"))
        optimizer.param_groups = whole
