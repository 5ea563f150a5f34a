"""PyTorch's side of run.py: trains a model of models.py in portions, as its standard input says.

`torch_side.py OPTIONS`, where OPTIONS is JSON: model, data, batch, optimizer, threads, frozen (fraction of the
leaves), batch_norm, channels_last, compile, epochs, device ("cpu" or "cuda"), precision. The commands and answers are
those of steps.rs, but for `bare`; `memory` tells what it has reserved of a device.

On a device it trains as its users do: TensorFloat-32, or autocast to bfloat16 on top of that, cuDNN's search for
algorithms, fused optimizers, batches in pinned memory of which the next is copied while a step computes. There the time
of a step is that between two events of its stream, and nobody waits for a loss before the turn is over.
"""

import contextlib
import json
import resource
import sys
import time

import numpy as np
import torch
from torch import nn

import models


def say(**answer):
    print(json.dumps(answer), flush=True)


def optimizer_of(asked, parameters, **how):
    options = {key: value for key, value in asked.items() if key != "kind"}
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[asked["kind"]]
    return kind(parameters, **options, **how)


def faster_optimizer(asked, parameters):
    """Of the implementations of the optimizer that which takes less time, timed on copies."""
    taken = {}
    for how in ("foreach", "fused"):
        copies = [parameter.detach().clone().requires_grad_() for parameter in parameters]
        for copy in copies:
            copy.grad = torch.ones_like(copy)
        optimizer = optimizer_of(asked, copies, **{how: True})
        times = []
        for _ in range(6):
            start = time.perf_counter()
            optimizer.step()
            times.append(time.perf_counter() - start)
        taken[how] = min(times)
    return min(taken, key=taken.get)


def freeze_layers(model, optimizer, elapsed, start=0.5, level=1.0):
    """Composer's LayerFreezing at the end of an epoch (algorithms/layer_freezing): what freezes leaves the optimizer."""
    found = models.leaves(model)
    fraction = level * (elapsed - start) / (1.0 - start) if elapsed > start else 0.0
    for leaf in found[:-1][: int(fraction * (len(found) - 1))]:
        for parameter in leaf.parameters():
            for group in optimizer.param_groups:
                group["params"] = [kept for kept in group["params"] if kept is not parameter]
            parameter.requires_grad = False


class Side:
    def __init__(self, options):
        torch.set_num_threads(options["threads"])
        self.device = torch.device(options["device"])
        self.cuda = self.device.type == "cuda"
        self.low = options["precision"] == "bf16"
        self.model = models.build(options["model"])
        if self.cuda:
            fast = options["precision"] != "fp32"
            torch.set_float32_matmul_precision("high" if fast else "highest")
            torch.backends.cudnn.allow_tf32 = fast
            torch.backends.cudnn.benchmark = True
            self.model.to(self.device)
        layout = torch.channels_last if options["channels_last"] else torch.contiguous_format
        if options["channels_last"]:
            self.model.to(memory_format=layout)
        for leaf in models.first_leaves(self.model, options["frozen"]):
            leaf.requires_grad_(False)
            if options["batch_norm"] == "frozen" and isinstance(leaf, nn.BatchNorm2d):
                leaf.eval()
        with np.load(options["data"]) as data:
            inputs, labels = torch.from_numpy(data["x"]), torch.from_numpy(data["labels"])
        if options["channels_last"]:
            inputs = inputs.to(memory_format=layout)
        self.batches = list(zip(inputs.split(options["batch"]), labels.split(options["batch"])))
        if self.cuda:
            self.batches = [tuple(part.pin_memory() for part in batch) for batch in self.batches]
            self.copies, self.next = torch.cuda.Stream(), None
        self.epochs = options["epochs"]
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.how = "fused" if self.cuda else faster_optimizer(options["optimizer"], trained)
        self.optimizer = optimizer_of(options["optimizer"], trained, **{self.how: True})
        self.forward = torch.compile(self.model) if options["compile"] else self.model
        self.at = 0

    def copied(self, number):
        """Begins to copy a batch to the device."""
        with torch.cuda.stream(self.copies):
            batch = [part.to(self.device, non_blocking=True) for part in self.batches[number % len(self.batches)]]
        return batch

    def batch(self):
        """The next batch, where it is computed with."""
        number, self.at = self.at, self.at + 1
        if not self.cuda:
            return self.batches[number % len(self.batches)]
        stream = torch.cuda.current_stream()
        stream.wait_stream(self.copies)
        batch = self.next or self.copied(number)
        stream.wait_stream(self.copies)
        for part in batch:
            part.record_stream(stream)
        self.next = self.copied(number + 1)
        return batch

    def step(self):
        """Trains a step and returns its loss as a tensor."""
        inputs, labels = self.batch()
        self.optimizer.zero_grad(set_to_none=True)
        how = torch.autocast(self.device.type, torch.bfloat16) if self.low else contextlib.nullcontext()
        with how:
            loss = nn.functional.cross_entropy(self.forward(inputs), labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def steps(self, count):
        if self.cuda:
            return self.steps_on_device(count)
        walls, losses = [], []
        for _ in range(count):
            start = time.perf_counter()
            losses.append(self.step().item())
            walls.append(time.perf_counter() - start)
        say(walls=walls, losses=losses)

    def steps_on_device(self, count):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        losses = []
        torch.cuda.synchronize()
        events[0].record()
        for event in events[1:]:
            losses.append(self.step())
            event.record()
        torch.cuda.synchronize()
        walls = [before.elapsed_time(after) / 1e3 for before, after in zip(events, events[1:])]
        say(walls=walls, losses=[loss.item() for loss in losses])

    def run(self):
        start = time.perf_counter()
        for epoch in range(self.epochs):
            for _ in self.batches:
                self.step().item()
            freeze_layers(self.model, self.optimizer, (epoch + 1) / self.epochs)
        say(seconds=time.perf_counter() - start)


def main():
    imported = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    side = Side(json.loads(sys.argv[1]))
    place = torch.cuda.get_device_name() if side.cuda else f"{torch.get_num_threads()} threads"
    say(engine=f"torch {torch.__version__}, {place}", optimizer=side.how, imported=imported)
    for line in sys.stdin:
        word, *count = line.split()
        if word == "run":
            side.run()
        elif word == "memory":
            say(bytes=torch.cuda.max_memory_reserved())
        else:
            side.steps(int(count[0]))


if __name__ == "__main__":
    main()
