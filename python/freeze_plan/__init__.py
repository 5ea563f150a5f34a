"""Plans which layers of an ONNX model freeze in which epoch, and applies the plan.

>>> import freeze_plan
>>> plan = freeze_plan.plan("model.onnx", epochs=10, freeze_start=0.25)
>>> for epoch in plan:
...     print(epoch.epoch, len(epoch.frozen), epoch.frozen[:2])

``plan.apply(model, optimizer, epoch)`` freezes a PyTorch module; ``freeze_plan.composer.FreezePlan(plan)``,
``freeze_plan.lightning.FreezePlan(plan)`` and ``freeze_plan.transformers.FreezePlan(plan)`` do so within the trainers of
Composer, Lightning and Transformers. None of these is needed for planning. ``freeze_plan.events("runs/first")`` reads what a run of ``freeze-plan train`` has written.
"""

from ._error import Error
from ._events import Events, Table, events
from ._module import Module, tree
from ._native import VERSION as __version__
from ._plan import Epoch, Final, Plan, Policy, Predicted, Summary, Unit, plan, policies

__all__ = [
    "Epoch",
    "Error",
    "Events",
    "Final",
    "Module",
    "Plan",
    "Policy",
    "Predicted",
    "Summary",
    "Table",
    "Unit",
    "__version__",
    "events",
    "plan",
    "policies",
    "tree",
]
