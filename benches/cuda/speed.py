"""How fast the large models train on the device, and what of it they use."""

import argparse
import math
import statistics
import sys
from pathlib import Path

import children

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "peers"))

import gpu
import run as peers
from rows import Row
from sides import Failed

MODELS = ("resnet50", "vit-b16", "bert-base")
WARM, STEPS = 10, 30
# Precision, operators, CUDA graphs, share of the leaves that is frozen.
WAYS = [
    ("bf16", "own", True, 0.0),
    ("bf16", "own", False, 0.0),
    ("bf16", "standard", True, 0.0),
    ("bf16", "own", True, 0.5),
    ("bf16", "own", True, 0.75),
    ("tf32", "own", True, 0.0),
    ("bf16", "standard", False, 0.0),
    ("tf32", "standard", True, 0.0),
    ("fp16", "own", True, 0.0),
    ("fp32", "own", True, 0.0),
]


class Speed(peers.Bench):
    """The harness that runs beside PyTorch, with this program's side alone."""

    def __init__(self, suite):
        self.suite = suite
        super().__init__(argparse.Namespace(
            python=sys.executable, driver=suite.args.driver, runtime=suite.args.runtime, device=suite.args.device,
            tiny=suite.args.tiny, threads=4, set=[], cached=[], limit=suite.args.limit, epoch_steps=12, make=False,
        ))

    def row(self, model, precision, operators, graphs, frozen):
        """Times a step; memory is that of the process after the steps, as the driver tells."""
        self.args.limit = max(1.0, min(self.suite.args.limit, self.suite.budget.left()))
        row = Row(f"speed-{model}", model, "", 1.0, frozen=frozen, device="cuda", precision=precision)
        more = [f"run.operators={operators}", f"run.cuda_graphs={str(graphs).lower()}"]
        if self.args.device == "cpu":
            more = more[:1]
        try:
            with self.ours(row, more=more) as side:
                self.note(side, None)
                side.ask(f"steps {WARM}")
                walls = side.ask(f"steps {STEPS}")["walls"]
                middle = statistics.median(walls)
                result = {"ms": middle * 1e3, "memory": side.device_bytes()}
                with gpu.Busy() as busy:
                    walls = side.ask(f"steps {min(500, math.ceil(3.0 / max(middle, 1e-3)))}")["walls"]
                return result | {"busy": busy.share(sum(walls)), "verdict": "ok"}
        except (Failed, BrokenPipeError) as failed:
            raise children.Ended(str(failed)) from failed


def checks(suite):
    """The checks of speed, the most telling first."""
    found = []

    def one(model, way):
        bench = suite.once("speed", lambda: Speed(suite))
        return bench.row(model, *way)

    for way in WAYS:
        for model in MODELS:
            precision, operators, graphs, frozen = way
            name = f"speed/{model}/{precision}-{operators}" + ("" if graphs else "-nographs")
            name += f"-{round(100 * frozen)}" if frozen else ""
            found.append((name, lambda m=model, w=way: one(m, w)))
    return found
