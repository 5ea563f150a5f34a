"""What a program writes, for mypy in its strict mode; the tests also run it."""

from __future__ import annotations

import sys
from pathlib import Path

import freeze_plan


def main(model: Path) -> list[int]:
    plan: freeze_plan.Plan = freeze_plan.plan(model, epochs=4, freeze_start=0.25, keep=["fc"])
    counts: list[int] = []
    for epoch in plan:
        names: tuple[str, ...] = epoch.frozen
        cost: float = epoch.predicted.step_cost
        counts.append(len(names))
        print(f"{epoch.epoch}: {len(names)} frozen, a step costs {cost:.2f}")
    held: frozenset[str] = plan.frozen(4)
    assert counts[-1] == len(held)
    loaded = freeze_plan.Plan.from_json(plan.to_json())
    assert loaded == plan
    paths: list[str] = [module.path for module in freeze_plan.tree(model).walk()]
    print(paths, plan.summary.verdict)
    return counts


def losses(run: Path) -> list[float]:
    table = freeze_plan.events(run).table("step")
    return [float(loss) for loss in table["loss"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
