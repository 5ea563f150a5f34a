"""The models that the suite trains, and their jobs."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent.parent / "fixtures"
STEPS = 50
SGD = {"kind": "sgd", "lr": 0.002, "momentum": 0.9, "weight_decay": 5e-4}
ADAMW = {"kind": "adamw", "lr": 1e-3}


@dataclass(frozen=True)
class Case:
    """A model with data. Of `data` the arrays are taken that `inputs` and `target` name."""

    name: str
    model: str
    data: str
    inputs: dict
    target: str = "labels"
    batch: int = 16
    optimizer: dict = field(default_factory=lambda: SGD)
    # Data that are one batch only are repeated.
    repeat: int = 1
    # The ratio of dropout, where the file has some: what is dropped differs between devices.
    dropout: bool = False
    # Whether all precisions are tried with all operators, with and without CUDA graphs.
    whole: bool = False

    def train(self, work):
        """The file of the data."""
        source = FIXTURES / self.data
        if self.repeat == 1:
            return source
        path = work / f"{self.name}.npz"
        if not path.exists():
            with np.load(source) as data:
                wanted = [*self.inputs.values(), self.target]
                arrays = {name: np.concatenate([data[name]] * self.repeat) for name in wanted}
            part = path.with_suffix(".part.npz")
            np.savez(part, **arrays)
            part.rename(path)
        return path

    def path(self):
        return FIXTURES / self.model

    def job(self, work, steps=STEPS, freeze=None, batch_norm="train", precision="fp32", device="cuda", operators="own",
            graphs=True, more=""):
        """The text of a job of so many steps; half the units freeze after half of them."""
        data = self.train(work)
        with np.load(data) as arrays:
            rows = arrays[self.target].shape[0]
        epoch = max(1, rows // self.batch)
        epochs = max(2, -(-steps // epoch))
        middle = epoch * epochs // 2
        freeze = freeze or f'[{{ epoch = {middle // epoch + 1}, step = {middle % epoch}, frozen = 0.5 }}]'
        options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in self.optimizer.items())
        inputs = ", ".join(f"{json.dumps(name)} = {json.dumps(column)}" for name, column in self.inputs.items())
        return (
            f"model = {json.dumps(str(self.path()))}\n"
            + ("dropout = 0.0\n" if self.dropout else "")
            + f"optimizer = {{ {options} }}\n"
            'loss = { kind = "cross-entropy" }\n'
            f"data = {{ train = {json.dumps(str(data))}, inputs = {{ {inputs} }}, target = {json.dumps(self.target)}, "
            f'batch = {self.batch}, last_batch = "drop", seed = 0, '
            # Of repeated data each batch has every row once.
            f'shuffle = {json.dumps(self.repeat == 1)} }}\n'
            f'freeze = {{ policy = "steps", steps = {freeze}, batch_norm = "{batch_norm}" }}\n'
            f"{more}[run]\nepochs = {epochs}\nthreads = 2\nceiling_steps = 0\nlog_every = 1\n"
            f'device = "{device}"\nprecision = "{precision}"\noperators = "{operators}"\n'
            f"cuda_graphs = {json.dumps(graphs)}\ndir = \"run\"\n"
        )


def small(name, inputs, **options):
    return Case(name, f"models/{name}.torchscript.onnx", f"models/{name}.npz", inputs, "target", 3, repeat=25, **options)


CASES = [
    Case("digits", "digits/model.onnx", "digits/train.npz", {"x": "images"}, batch=64, whole=True),
    Case("resnet8", "parity/resnet8.onnx", "parity/resnet8.npz", {"x": "images"}, batch=8, whole=True),
    Case("digits_vit", "digits_vit/model.onnx", "digits/train.npz", {"x": "images"}, batch=64, optimizer=ADAMW,
         dropout=True, whole=True),
    small("bert", {name: name for name in ("ids", "mask", "kinds")}, optimizer=ADAMW),
    small("gpt2", {name: name for name in ("ids", "mask")}, optimizer=ADAMW),
    Case("mlp", "freezing/mlp.onnx", "freezing/mlp.npz", {"x": "x"}, batch=8, whole=True),
    small("vit", {"x": "x"}, optimizer=ADAMW),
    small("resnet", {"x": "x"}),
    small("mobilenet_v2", {"x": "x"}),
    small("convnext", {"x": "x"}, optimizer=ADAMW),
]


@dataclass(frozen=True)
class Way:
    """How a case computes on the device."""

    precision: str
    operators: str = "own"
    graphs: bool = True

    @property
    def name(self):
        return f"{self.precision}-{self.operators}" + ("" if self.graphs else "-nographs")


def ways(case):
    """What is tried of a case, the most telling first."""
    found = [Way("fp32"), Way("bf16"), Way("fp32", "standard"), Way("fp16")]
    if case.whole:
        found += [Way("tf32"), Way("fp32", graphs=False), Way("bf16", graphs=False), Way("fp16", graphs=False)]
        found += [Way(precision, "standard") for precision in ("tf32", "bf16", "fp16")]
        found += [Way(precision, "standard", False) for precision in ("fp32", "bf16")]
    return found
