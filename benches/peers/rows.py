"""What run.py measures: the models, and a row of the table each, on the processor or a CUDA device."""

from dataclasses import dataclass

SGD = {"kind": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
ADAMW = {"kind": "adamw", "lr": 1e-4}


@dataclass(frozen=True)
class Model:
    about: str
    batch: int
    optimizer: dict
    convolutions: bool
    batches: int = 16
    # Of the small model that stands for a large one with --tiny.
    tiny_batch: int = 0


MODELS = {
    "resnet56": Model("ResNet-56, 32x32, batch 64, SGD", 64, SGD, True),
    "resnet8": Model("ResNet-8, 32x32, batch 16, SGD", 16, SGD, True),
    "bert-mini": Model("BERT-mini, 4 layers, 256 wide, sequence 128, batch 16, AdamW", 16, ADAMW, False, 64),
    "vit-tiny": Model("ViT-tiny, 12 layers, 192 wide, 64x64, patch 8, batch 32, AdamW", 32, ADAMW, False),
    # At a higher rate two layouts of PyTorch itself differ by more than the tolerance.
    "mobilenet": Model("MobileNetV2, 64x64, batch 32, SGD", 32, SGD | {"lr": 1e-4}, True),
    "resnet18": Model("ResNet-18, 112x112, batch 16, SGD", 16, SGD, True),
    "resnet50": Model("ResNet-50, 224x224, batch 256, SGD", 256, SGD, True, 6, 4),
    "vit-b16": Model("ViT-B/16, 224x224, batch 128, AdamW", 128, ADAMW, False, 12, 4),
    "bert-base": Model("BERT-base, sequence 128, batch 64, AdamW", 64, ADAMW, False, 128, 4),
}


@dataclass(frozen=True)
class Row:
    name: str
    model: str
    about: str
    goal: float
    kind: str = "step"
    frozen: float = 0.0
    batch_norm: str = "train"
    cached: bool = False
    device: str = "cpu"
    precision: str = "fp32"
    # Whether torch.compile is timed too, where that is asked for.
    compiled: bool = True


def on_cuda():
    """The large models, what matters most first."""
    found = []
    for precision in ("bf16", "tf32"):
        for percent in (0, 50, 75):
            for model in ("resnet50", "vit-b16", "bert-base"):
                about = f"{precision}, " + (f"first {percent} % of leaves frozen" if percent else "nothing frozen")
                name = f"cuda-{model}-{precision}" + (f"-{percent}" if percent else "")
                found.append(Row(name, model, about, 0.85 if percent else 1.0, frozen=percent / 100, device="cuda",
                                 precision=precision, compiled=not percent))
    return found


def rows():
    found = [Row("resnet56", "resnet56", "nothing frozen", 0.85)]
    for percent in (25, 50, 75, 90):
        about = f"first {percent} % of leaves frozen"
        found.append(Row(f"resnet56-{percent}", "resnet56", about, 0.8, frozen=percent / 100))
    for percent in (25, 50, 75, 90):
        about = f"first {percent} % frozen, BatchNorm too"
        row = Row(f"resnet56-{percent}-frozen", "resnet56", about, 0.65, frozen=percent / 100, batch_norm="frozen")
        found.append(row)
    found += [
        Row("resnet56-75-cached", "resnet56", "first 75 % frozen, BatchNorm too, prefix cached", 0.4,
            frozen=0.75, batch_norm="frozen", cached=True),
        Row("resnet56-run", "resnet56", "10 epochs, Composer's defaults", 0.8, "run"),
        Row("resnet56-run-cached", "resnet56", "10 epochs, Composer's defaults, BatchNorm frozen, prefix cached", 0.6,
            "run", batch_norm="frozen", cached=True),
        Row("bert-mini", "bert-mini", "nothing frozen", 0.85),
        Row("vit-tiny", "vit-tiny", "nothing frozen", 0.85),
        Row("mobilenet", "mobilenet", "nothing frozen", 0.9),
        Row("resnet18", "resnet18", "nothing frozen", 0.9),
    ]
    for percent in (25, 50, 75, 90):
        about = f"share of the predicted saving, first {percent} % of leaves frozen"
        found.append(Row(f"saving-{percent}", "resnet56", about, 0.95, "saving", frozen=percent / 100))
    found += [
        Row("memory-resnet56", "resnet56", "peak resident memory", 0.8, "memory"),
        Row("memory-bert-mini", "bert-mini", "peak resident memory", 0.8, "memory"),
        Row("overhead", "resnet56", "step over its bare sessions", 1.02, "overhead"),
        # To try the harness: a row takes seconds.
        Row("try", "resnet8", "nothing frozen", 1.0),
        Row("try-50", "resnet8", "first 50 % of leaves frozen", 1.0, frozen=0.5),
        Row("try-50-frozen", "resnet8", "first 50 % frozen, BatchNorm too", 1.0, frozen=0.5, batch_norm="frozen"),
        Row("try-run", "resnet8", "10 epochs, Composer's defaults", 1.0, "run"),
        Row("try-saving", "resnet8", "share of the predicted saving, first 50 % of leaves frozen", 1.0, "saving",
            frozen=0.5),
        Row("try-memory", "resnet8", "peak resident memory", 1.0, "memory"),
        Row("try-overhead", "resnet8", "step over its bare sessions", 1.0, "overhead"),
    ]
    return found + on_cuda()
