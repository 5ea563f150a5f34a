"""Which parameter, buffer or module of a PyTorch module a name of a plan means.

A name means the parameter that is called so, once what wrappers put into names is left out; else that of the same name
behind the prefix, or without the prefix, that fits most names. A weight that an exporter has renamed or transposed
(``onnx::MatMul_12``) means the one parameter that is left over in the module of its unit, when all its elements count up.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from torch import Tensor, nn

from ._error import Error
from ._plan import Plan, Unit

_T = TypeVar("_T")

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})

_KEEPS_NAMES = (
    "torch.onnx.export(.., dynamo=True, optimize=False) or "
    "(.., dynamo=False, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)"
)


def parameters_of(plan: Plan, model: nn.Module, names: Mapping[str, str]) -> dict[str, nn.Parameter]:
    """Returns the parameters that initializers of the plan mean, those that never freeze as far as they are found.

    :raises Error: one that the plan freezes or scales is not found, or a unit has other sizes in the model.
    """
    own = _plain(model.named_parameters(remove_duplicate=False))
    wanted = [*plan.parameters, *(name for unit in plan.units for name in unit.shared)]
    told = {ours: name for ours, name in names.items() if ours in set(wanted)}
    found = _found(wanted, own, told, "parameter")
    to_model = _transform(wanted, own)
    for unit in plan.units:
        found.update(_left_over(unit, found, own, to_model(unit.path)))
    used = {name for entry in plan for part in (entry, *entry.changes) for name in (*part.frozen, *part.lr_scale)}
    _refuse([name for name in wanted if name in used and name not in found], own, "parameter", wanted)
    for unit in plan.units:
        _check_size(unit, found)
    known = {id(value) for value in found.values()}
    rest = [name for name, value in own.items() if value.requires_grad and id(value) not in known]
    if used and rest:
        shown = ", ".join(rest[:4]) + (", .." if len(rest) > 4 else "")
        warnings.warn(f"the plan has no name for {len(rest)} parameters of the model, which always train: {shown}", stacklevel=2)
    return found


def buffers_of(plan: Plan, model: nn.Module, names: Mapping[str, str]) -> dict[str, nn.Module]:
    """Returns the modules that hold the running statistics which the plan lets stay.

    :raises Error: one of them is not found.
    """
    used = _used(plan, lambda entry: entry.statistics)
    if not used:
        return {}
    own = _plain(model.named_buffers(remove_duplicate=False))
    owners = dict(_plain(model.named_modules(remove_duplicate=False)))
    transform = _transform([*plan.parameters, *used], {**own, **_plain(model.named_parameters(remove_duplicate=False))})
    told = {ours: name for ours, name in names.items() if ours in set(used)}
    found = {name: _named(name, told, transform) for name in used}
    _refuse([name for name, theirs in found.items() if theirs not in own], own, "buffer", used)
    return {name: owners[theirs.rpartition(".")[0]] for name, theirs in found.items()}


def dropouts_of(plan: Plan, model: nn.Module, names: Mapping[str, str]) -> dict[str, nn.Module]:
    """Returns the Dropout modules whose outputs the plan names: ``/block/drop/Dropout_output_0`` is of ``block.drop``.

    :raises Error: one of them is not found.
    """
    used = _used(plan, lambda entry: entry.dropout_off)
    if not used:
        return {}
    own = {name: module for name, module in _plain(model.named_modules()).items() if "Dropout" in type(module).__name__}
    told = {ours: name for ours, name in names.items() if ours in set(used)}
    paths = {name: name.strip("/").rpartition("/")[0].replace("/", ".") for name in used}
    transform = _transform(list(paths.values()), own)
    found = {name: told.get(name) or transform(path) for name, path in paths.items()}
    _refuse([name for name, theirs in found.items() if theirs not in own], own, "Dropout module", used)
    return {name: own[theirs] for name, theirs in found.items()}


def _used(plan: Plan, names: Callable[..., Iterable[str]]) -> list[str]:
    entries = (part for entry in plan for part in (entry, *entry.changes))
    return list(dict.fromkeys(name for entry in entries for name in names(entry)))


def _plain(named: Iterable[tuple[str, _T]]) -> dict[str, _T]:
    """Returns values by name without what wrappers put into it."""
    return {".".join(part for part in name.split(".") if part not in _WRAPPERS): value for name, value in named}


def _transform(wanted: Iterable[str], own: Mapping[str, object]) -> Callable[[str], str]:
    """Returns how names of the plan become names of the model: as they are, with a prefix, or without one."""
    wanted = list(dict.fromkeys(wanted))
    added: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    ends: dict[str, list[str]] = {}
    for name in own:
        for end in _ends(name):
            ends.setdefault(end, []).append(name)
    for name in wanted:
        added.update(theirs.removesuffix(name) for theirs in ends.get(name, ()))
        taken.update(name.removesuffix(end) for end in _ends(name) if end in own)
    most = max([*added.values(), *taken.values(), 0])
    if most == 0 or added[""] == most:
        return lambda name: name
    for prefix, count in added.items():
        if count == most:
            return lambda name: prefix + name
    prefix = next(prefix for prefix, count in taken.items() if count == most)
    return lambda name: name.removeprefix(prefix)


def _ends(name: str) -> Iterable[str]:
    """Yields a name and what is left of it behind each of its dots."""
    yield name
    for dot in re.finditer(r"\.", name):
        yield name[dot.end() :]


def _named(name: str, told: Mapping[str, str], transform: Callable[[str], str]) -> str:
    return told[name] if name in told else transform(name)


def _found(wanted: list[str], own: Mapping[str, _T], told: Mapping[str, str], what: str) -> dict[str, _T]:
    for ours, theirs in told.items():
        if theirs not in own:
            raise Error(f'names maps "{ours}" to "{theirs}", which is no {what} of the model{_near(theirs, own)}')
    transform = _transform(wanted, own)
    pairs = ((name, _named(name, told, transform)) for name in wanted)
    return {name: own[theirs] for name, theirs in pairs if theirs in own}


def _left_over(
    unit: Unit, found: Mapping[str, nn.Parameter], own: Mapping[str, nn.Parameter], path: str
) -> dict[str, nn.Parameter]:
    missing = [name for name in unit.parameters if name not in found]
    if len(missing) != 1:
        return {}
    known = {id(parameter) for parameter in found.values()}
    direct = [value for name, value in own.items() if name.rpartition(".")[0] == path]
    left = [value for value in direct if id(value) not in known]
    counted = sum(found[name].numel() for name in unit.parameters if name in found)
    fits = len(left) == 1 and counted + left[0].numel() == unit.elements
    return {missing[0]: left[0]} if fits else {}


def _check_size(unit: Unit, found: Mapping[str, nn.Parameter]) -> None:
    owns = [found[name] for name in unit.parameters if name in found]
    sharded = any(type(own) is not nn.Parameter for own in owns)
    if len(owns) != len(unit.parameters) or sharded:
        return
    elements = sum(own.numel() for own in owns)
    if elements not in (unit.elements, 0):
        raise Error(
            f'unit "{unit.path}" has {elements} elements in the model, the plan says {unit.elements}',
            "the plan is for another model; make it of an export of this one",
        )


def _refuse(missing: list[str], own: Mapping[str, Tensor | nn.Module], what: str, wanted: list[str]) -> None:
    if not missing:
        return
    shown = "; ".join(f'"{name}"{_near(name, own)}' for name in missing[:4])
    more = f"; and {len(missing) - 4} more" if len(missing) > 4 else ""
    hint = f"map them: names={{{missing[0]!r}: ..}}"
    if any(re.match(r"onnx::|val_\d", name) for name in missing):
        hint += f"; or keep their names in the export, {_KEEPS_NAMES}"
    raise Error(f"the model has no {what} for {len(missing)} of {len(wanted)} names of the plan: {shown}{more}", hint)


def _near(name: str, own: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, list(own), n=3, cutoff=0.4)
    return f" (nearest: {', '.join(repr(other) for other in near)})" if near else ""
