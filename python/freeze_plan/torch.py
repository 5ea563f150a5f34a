"""A plan applied to a PyTorch module and its optimizers.

What a frozen epoch means here: the parameter has ``requires_grad`` False and no gradient, and it is in no parameter
group; a running statistic that stays belongs to a module that normalizes by it; the rate of a parameter with a factor is
its group's rate times that. Everything else is left as it is, so what did not train before never trains.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import nn
from torch.optim import LBFGS, Optimizer

from ._error import Error
from ._names import buffers_of, dropouts_of, parameters_of
from ._plan import Epoch, Plan
from ._rates import Rates

__all__ = ["Freezer", "Optimizers", "freezer"]

Optimizers: TypeAlias = "Optimizer | Sequence[Optimizer]"

_ON_RETURN = ("reset", "keep", "warm-up")


class Freezer:
    """Freezes and thaws the parameters of a module as a plan says.

    :meth:`apply` goes to an epoch from wherever the module is. A run that goes on from a checkpoint calls it for the
    epoch of the checkpoint before ``optimizer.load_state_dict``, so that the groups hold the same parameters. What
    DistributedDataParallel is to keep in step must train when it wraps the module: wrap first, with
    ``find_unused_parameters=True``, then call :meth:`apply`. A module has one freezer: a new one takes over from the one
    before, which lets go of what it froze.

    Parameters of the module that the plan does not know train throughout; a warning names them.

    :param plan: the plan.
    :param model: the module; its parameters are found by the names of the plan's initializers, with or without a prefix
        (``module.``, as wrappers have it), and by module path where an exporter has renamed or transposed a weight.
    :param optimizers: the optimizers whose groups hold the parameters; ``None`` changes only the module.
    :param names: names of ``model.named_parameters()`` by initializer name, where they are not found.
    :param remove: whether frozen parameters leave the groups. Optimizers pass over a parameter without a gradient in any
        case; ``False`` keeps the groups as they are for what relies on them, and where ``on_return`` is ``"keep"`` the
        state in the optimizer.
    :raises Error: a parameter that the plan freezes is not found (the nearest names are told), the optimizer is LBFGS, or
        ``model`` is no module or ``optimizers`` are none.
    """

    def __init__(
        self,
        plan: Plan,
        model: nn.Module,
        optimizers: Optimizers | None = None,
        *,
        names: Mapping[str, str] | None = None,
        remove: bool = True,
    ) -> None:
        _refuse_others(model)
        self.plan = plan
        self.names = dict(names or {})
        self._remove = remove
        self._on_return = str(plan.settings.get("on_return", "reset"))
        if self._on_return not in _ON_RETURN:
            raise Error(f"on_return is {self._on_return!r}, expected one of {', '.join(_ON_RETURN)}")
        self._model = weakref.ref(model)
        self._parameters = parameters_of(plan, model, self.names)
        self._statistics = buffers_of(plan, model, self.names)
        self._dropouts = dropouts_of(plan, model, self.names)
        self._own = [weakref.ref(own) for own in model.parameters()]
        earlier = _freezers.get(model)
        if earlier is not None:
            earlier.release()
        _freezers[model] = self
        self._trains = {id(own) for own in self._parameters.values() if own.requires_grad}
        self._frozen: dict[int, nn.Parameter] = {}
        self._held: dict[int, Any] = {}
        self._modules: dict[int, nn.Module] = {}
        self._homes: weakref.WeakKeyDictionary[Optimizer, list[list[nn.Parameter]]] = weakref.WeakKeyDictionary()
        self._removed: set[int] = set()
        self._kept: dict[int, dict[str, Any]] = {}
        self._rates = Rates(int(plan.settings.get("warm_up_steps", 100)) if self._on_return == "warm-up" else None)
        self._optimizers: tuple[weakref.ref[Optimizer], ...] = ()
        self.attach(optimizers)

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the plan's initializers that are frozen now."""
        return frozenset(name for name, own in self._parameters.items() if id(own) in self._frozen)

    def attach(self, optimizers: Optimizers | None) -> None:
        """Takes other optimizers than before."""
        given = () if optimizers is None else optimizers
        held = tuple(map(_unwrapped, (given,) if isinstance(given, Optimizer) else given))
        self._optimizers = tuple(map(weakref.ref, held))
        self._rates.attach(held)

    def apply(self, epoch: int, step: int = 0) -> Epoch:
        """Freezes and thaws as the plan says for an epoch, from 1, after ``step`` of its steps.

        Of a policy that anneals rates within an epoch, those of its start (and of its changes) hold.

        :returns: the entry of the plan.
        :raises Error: the plan has no such epoch, or what trains again is in no optimizer any more.
        """
        entry = self.plan.at(epoch, step)
        frozen = self._asked(entry.frozen)
        thawed = [own for key, own in self._frozen.items() if key not in frozen]
        freshly = [own for key, own in frozen.items() if key not in self._frozen]
        # All, not only what is new: others may have switched them on.
        for own in frozen.values():
            own.requires_grad_(False)
            own.grad = None
        for own in thawed:
            own.requires_grad_(True)
        self._frozen = frozen
        self._regroup(freshly, thawed)
        self._rates.scale({self._parameters[name]: factor for name, factor in entry.lr_scale.items()})
        self._hold({id(own): own for own in self._still(entry)})
        return entry

    def release(self) -> None:
        """Takes everything back: all trains again that did before."""
        thawed = list(self._frozen.values())
        for own in thawed:
            own.requires_grad_(True)
        self._frozen = {}
        self._regroup([], thawed)
        self._hold({})
        self._rates.attach(())

    def state_dict(self) -> dict[str, Any]:
        """Returns what goes on with a checkpoint beside the states of module and optimizers."""
        names = {id(own): name for name, own in self._parameters.items()}
        return {
            "kept": {names[key]: state for key, state in self._kept.items()},
            "returned": self._rates.state(names),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what :meth:`state_dict` returned, after :meth:`apply` for the epoch of the checkpoint.

        :raises Error: it is the state of another plan.
        """
        for name in (*state["kept"], *state["returned"]):
            if name not in self._parameters:
                raise Error(f'the state is that of another plan: it has "{name}", this one has not')
        self._kept = {id(self._parameters[name]): dict(kept) for name, kept in state["kept"].items()}
        self._rates.load({self._parameters[name]: steps for name, steps in state["returned"].items()})

    def _is_of(self, model: nn.Module) -> bool:
        """Returns whether the module still has the parameters that were found."""
        own = list(model.parameters())
        return len(own) == len(self._own) and all(held() is new for held, new in zip(self._own, own, strict=True))

    def _asked(self, names: Iterable[str]) -> dict[int, nn.Parameter]:
        """Returns what is frozen. A parameter with several names is when the plan freezes all of them."""
        asked = set(names)
        trains = {id(own) for name, own in self._parameters.items() if name not in asked}
        owns = (self._parameters[name] for name in self._parameters if name in asked)
        return {id(own): own for own in owns if id(own) in self._trains and id(own) not in trains}

    def _still(self, entry: Epoch) -> list[nn.Module]:
        statistics = [self._statistics[name] for name in entry.statistics]
        return statistics + [self._dropouts[name] for name in entry.dropout_off]

    def _regroup(self, freshly: Sequence[nn.Parameter], thawed: Sequence[nn.Parameter]) -> None:
        optimizers = [optimizer for held in self._optimizers if (optimizer := held()) is not None]
        for optimizer in optimizers:
            homes = self._homes.setdefault(optimizer, [])
            for index, group in enumerate(optimizer.param_groups):
                if index == len(homes):
                    homes.append([])
                known = {id(own) for own in homes[index]}
                homes[index].extend(own for own in group["params"] if id(own) not in known)
            owned = {id(own) for home in homes for own in home}
            self._removed.update(id(own) for own in freshly if id(own) in owned)
            stays = self._on_return == "keep" and not self._remove
            for own in () if stays else freshly:
                state = optimizer.state.pop(own, None)
                if state is not None and self._on_return == "keep":
                    self._kept[id(own)] = state
            for own in thawed:
                if id(own) in owned and id(own) in self._kept:
                    optimizer.state[own] = self._kept.pop(id(own))
            if self._remove:
                for home, group in zip(homes, optimizer.param_groups, strict=True):
                    group["params"] = [own for own in home if id(own) not in self._frozen]
        if optimizers:
            self._check(optimizers, thawed)
        self._rates.returned([own for own in thawed if id(own) in self._removed])
        self._removed.difference_update(id(own) for own in thawed)

    def _check(self, optimizers: Sequence[Optimizer], thawed: Sequence[nn.Parameter]) -> None:
        homes = [home for optimizer in optimizers for home in self._homes.get(optimizer, [])]
        owned = {id(own) for home in homes for own in home}
        for own in thawed:
            if id(own) in self._removed and id(own) not in owned:
                name = next(name for name, other in self._parameters.items() if other is own)
                raise Error(
                    f'parameter "{name}" trains again and is in no optimizer',
                    "make the optimizer of all parameters, before the first call",
                )

    def _hold(self, modules: dict[int, nn.Module]) -> None:
        """Keeps these modules in inference mode, whatever mode the whole is set to; others go back to that."""
        root = self._model()
        for key in [key for key in self._held if key not in modules]:
            hook, own_mode = self._held.pop(key)
            hook.remove()
            mode = root.training if own_mode is None and root is not None else bool(own_mode)
            self._modules.pop(key).train(mode)
        for key, module in modules.items():
            if key not in self._held:
                own_mode = None if root is not None and module.training == root.training else module.training
                self._held[key] = (module.register_forward_pre_hook(_infer), own_mode)
                self._modules[key] = module
            module.eval()


def _refuse_others(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise Error(f"model is of type {type(model).__name__}, expected a torch.nn.Module")


def _unwrapped(optimizer: Any) -> Optimizer:
    """Returns the optimizer that one of Accelerate holds."""
    if not isinstance(optimizer, Optimizer):
        raise Error(f"an optimizer is of type {type(optimizer).__name__}, expected a torch.optim.Optimizer")
    inner = getattr(optimizer, "optimizer", None)
    own = inner if isinstance(inner, Optimizer) else optimizer
    if isinstance(own, LBFGS):
        raise Error("LBFGS moves all parameters as one, those that are frozen too", kind="unsupported")
    return own


def _infer(module: nn.Module, _: Any) -> None:
    module.training = False


# By module; a freezer refers to its module and its optimizers weakly, so nothing is kept alive by this.
_freezers: weakref.WeakKeyDictionary[nn.Module, Freezer] = weakref.WeakKeyDictionary()


def freezer(
    plan: Plan, model: nn.Module, optimizers: Optimizers | None = None, names: Mapping[str, str] | None = None
) -> Freezer:
    """Returns the freezer that ``plan.apply`` keeps for a module, made where there is none for this plan."""
    _refuse_others(model)
    found = _freezers.get(model)
    if found is not None and found.plan == plan and found.names == dict(names or {}) and found._is_of(model):
        found.attach(optimizers)
        return found
    return Freezer(plan, model, optimizers, names=names)
