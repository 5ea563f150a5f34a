"""What runs left in their folders, compared. Nothing here starts anything."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Of a run on CUDA beside the same on the CPU in float32: how far losses may be apart, relative to the CPU's or to a tenth
# of its first, and how far parameters may end, relative to how far training moved them (all of them as one vector).
TOLERANCES = {"fp32": (3e-4, 1e-2), "tf32": (1e-2, 5e-2), "bf16": (5e-2, 0.3), "fp16": (2e-2, 0.1)}
# The same of two runs on the device that differ in how they are run, in any precision.
SAME = 1e-5


@dataclass
class Run:
    """A run's folder, read."""

    events: list
    losses: dict
    values: dict

    @staticmethod
    def read(folder):
        folder = Path(folder)
        events = read_events(folder / "events.jsonl")
        model = folder / "model.onnx"
        return Run(events, losses(events), parameters(model) if model.exists() else {})

    def of(self, kind):
        return [event for event in self.events if event["event"] == kind]

    def problems(self):
        """Why the run itself is no good, whatever it computed."""
        found = []
        ends = self.of("end")
        if not ends or ends[-1]["status"] != "done":
            found.append(f"ended: {ends[-1].get('error') or ends[-1]['status']}" if ends else "did not end")
        if not self.losses:
            found.append("has no steps")
        elif not all(math.isfinite(loss) for loss in self.losses.values()):
            found.append("a loss is not finite")
        return found

    def on_processor(self):
        """Warnings of nodes that are on the processor."""
        texts = [event["message"] for event in self.of("warning")]
        return [text for text in texts if "on the processor" in text or "on the CPU" in text]


def read_events(path):
    """The events; a line that is not whole, as a crash leaves it, is left out."""
    events = []
    for line in Path(path).read_text().splitlines() if Path(path).exists() else []:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def losses(events):
    """The loss of each step. A number that JSON does not have is null there."""
    number = lambda value: math.nan if value is None else float(value)
    return {event["step"]: number(event.get("loss")) for event in events if event["event"] == "step"}


def parameters(path):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {name: array for name, array in found.items() if array.dtype.kind == "f"}


def loss_deviation(found, expected):
    """The largest deviation of a step's loss; infinite where steps are missing."""
    if not expected or found.keys() != expected.keys():
        return math.inf
    least = 0.1 * abs(expected[min(expected)])
    worst = 0.0
    for step, loss in expected.items():
        off = abs(found[step] - loss) / max(abs(loss), least, 1e-30)
        worst = max(worst, off if math.isfinite(off) else math.inf)
    return worst


def parameter_deviation(found, expected, start):
    """How far parameters are apart, relative to how far those expected moved; infinite where some are missing."""
    if not expected or found.keys() != expected.keys():
        return math.inf
    apart = moved = 0.0
    for name, array in expected.items():
        if array.shape != found[name].shape:
            return math.inf
        apart += float(((found[name].astype(float) - array) ** 2).sum())
        if name in start and start[name].shape == array.shape:
            moved += float(((array.astype(float) - start[name]) ** 2).sum())
    if not math.isfinite(apart) or moved == 0.0:
        return math.inf
    return math.sqrt(apart / moved)


def bits_differ(names, first, second):
    """The tensors of these names that are not the same bit for bit, or missing."""
    same = lambda name: name in first and name in second and first[name].tobytes() == second[name].tobytes()
    return [name for name in names if not same(name)]


def parity(run, reference, start, precision):
    """A row of the table: a run on CUDA beside the same on the CPU."""
    loss_limit, parameter_limit = TOLERANCES[precision]
    row = {
        "losses": loss_deviation(run.losses, reference.losses),
        "parameters": parameter_deviation(run.values, reference.values, start),
        "processor": len(run.on_processor()), "proofs": len(run.of("proof")), "allowed": [loss_limit, parameter_limit],
    }
    wrong = run.problems() + [f"the CPU's run {problem}" for problem in reference.problems()]
    if not wrong:
        if not row["losses"] <= loss_limit:
            wrong.append(f"losses differ by {row['losses']:.1e}")
        if not row["parameters"] <= parameter_limit:
            wrong.append(f"parameters differ by {row['parameters']:.1e}")
        if not row["proofs"]:
            wrong.append("nothing was proved frozen")
        if row["processor"]:
            wrong.append(run.on_processor()[0][:160])
    return row | verdict(wrong)


def alike(run, reference):
    """A row: two runs on the device that must do the same."""
    off = loss_deviation(run.losses, reference.losses)
    differ = bits_differ(reference.values, run.values, reference.values)
    row = {"losses": off, "bits": off == 0.0 and not differ}
    wrong = run.problems() + [f"the other run {problem}" for problem in reference.problems()]
    if not wrong and not off <= SAME:
        wrong.append(f"losses differ by {off:.1e}")
    return row | verdict(wrong)


def verdict(wrong):
    return {"verdict": "; ".join(wrong) if wrong else "ok"}


def latest_checkpoint(folder):
    """The parameters and statistics of a run's newest checkpoint, as raw bytes in arrays."""
    folders = sorted((Path(folder) / "checkpoints").glob("*/values.safetensors"))
    return safetensors(folders[-1]) if folders else {}


def safetensors(path):
    """The tensors of a file, by name; of any dtype, as bytes."""
    data = Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    head.pop("__metadata__", None)
    body = memoryview(data)[8 + size :]
    return {name: np.frombuffer(body[slice(*entry["data_offsets"])], np.uint8) for name, entry in head.items()}


def frozen_at_end(plan):
    """The parameters that are frozen in a plan's last epoch."""
    plan = json.loads(Path(plan).read_text())
    return plan["epochs"][-1]["frozen"]


def of_test(log):
    """A row: what the test of an operator printed."""
    skipped = re.search(r"skipped on CUDA: (.*)", log)
    ratios = [float(found) for found in re.findall(r" on CUDA: .* ([0-9.e+-]+) of what is allowed", log)]
    row = {"outputs": len(ratios), "worst": max(ratios, default=None)}
    return row | {"verdict": f"not run: {skipped[1]}" if skipped else "ok"}
