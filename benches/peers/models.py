"""The models that both sides train, with their data: `models.py NAME FOLDER ROWS` writes model.onnx and data.npz.

Weights are those of PyTorch's generator at seed 0, so that another process builds the same model. No model has Dropout:
both sides compute the same numbers. Data are random; labels are too.
"""

import contextlib
import io
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class BasicBlock(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = None
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2, with projections where the shape changes: 6n + 2 layers."""

    def __init__(self, n, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = self.stage(n, 16, 16, 1)
        self.layer2 = self.stage(n, 16, 32, 2)
        self.layer3 = self.stage(n, 32, 64, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, classes)

    @staticmethod
    def stage(n, inputs, width, stride):
        blocks = [BasicBlock(inputs if i == 0 else width, width, stride if i == 0 else 1) for i in range(n)]
        return nn.Sequential(*blocks)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x))))))
        return self.fc(self.flatten(self.pool(x)))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        batch, tokens, width = x.shape

        def split(y):
            return y.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)

        y = functional.scaled_dot_product_attention(split(self.query(x)), split(self.key(x)), split(self.value(x)))
        return self.output(y.transpose(1, 2).reshape(batch, tokens, width))


class Layer(nn.Module):
    """A transformer layer that normalizes after each part, as BERT, or before, as ViT."""

    def __init__(self, width, heads, before, eps):
        super().__init__()
        self.before = before
        self.attention = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.up = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.down = nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def mlp(self, x):
        return self.down(self.act(self.up(x)))

    def forward(self, x):
        if self.before:
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.mlp(x))


class Bert(nn.Module):
    """Devlin et al. 2018 for classification; all tokens are attended to, and all are of type 0."""

    def __init__(self, layers, width, heads, vocabulary, length, classes=2):
        super().__init__()
        self.word = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.zeros(1, length, width))
        self.kind = nn.Parameter(torch.zeros(1, 1, width))
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.Sequential(*(Layer(width, heads, False, 1e-12) for _ in range(layers)))
        self.pool = nn.Linear(width, width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, ids):
        x = self.layers(self.norm(self.word(ids) + self.position + self.kind))
        return self.classifier(torch.tanh(self.pool(x[:, 0])))


class Vit(nn.Module):
    """Dosovitskiy et al. 2020."""

    def __init__(self, image, patch, layers, width, heads, classes=100):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, width))
        self.layers = nn.Sequential(*(Layer(width, heads, True, 1e-6) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.layers(x))[:, 0])


def torchvision_model(name, classes):
    import torchvision

    model = getattr(torchvision.models, name)(weights=None, num_classes=classes)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def narrow_resnet():
    """ResNet-50's blocks, one of each width."""
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10, width_per_group=8)


def images(size, classes):
    def make(random, rows):
        pixels = random.standard_normal((rows, 3, size, size), dtype=np.float32)
        return pixels, random.integers(0, classes, rows)

    return make


def tokens(vocabulary, length, classes):
    def make(random, rows):
        return random.integers(0, vocabulary, (rows, length)), random.integers(0, classes, rows)

    return make


@dataclass
class Spec:
    """How a model and its data are made."""

    new: object
    make: object
    transformer: bool = False


SPECS = {
    "resnet56": Spec(lambda: CifarResNet(9), images(32, 10)),
    "resnet8": Spec(lambda: CifarResNet(1), images(32, 10)),
    "bert-mini": Spec(lambda: Bert(4, 256, 4, 30522, 128), tokens(30522, 128, 2), True),
    "vit-tiny": Spec(lambda: Vit(64, 8, 12, 192, 3), images(64, 100), True),
    "mobilenet": Spec(lambda: torchvision_model("mobilenet_v2", 100), images(64, 100)),
    "resnet18": Spec(lambda: torchvision_model("resnet18", 100), images(112, 100)),
    "resnet50": Spec(lambda: torchvision_model("resnet50", 1000), images(224, 1000)),
    "vit-b16": Spec(lambda: Vit(224, 16, 12, 768, 12, 1000), images(224, 1000), True),
    "bert-base": Spec(lambda: Bert(12, 768, 12, 30522, 128), tokens(30522, 128, 2), True),
    "resnet50-tiny": Spec(narrow_resnet, images(32, 10)),
    "vit-b16-tiny": Spec(lambda: Vit(32, 16, 2, 48, 3, 10), images(32, 10), True),
    "bert-base-tiny": Spec(lambda: Bert(2, 32, 2, 100, 16), tokens(100, 16, 2), True),
}


def build(name):
    """The model in training form."""
    torch.manual_seed(0)
    model = SPECS[name].new()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if SPECS[name].transformer:
        for part, parameter in model.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
            elif part.endswith("bias"):
                nn.init.zeros_(parameter)
    return model.train()


def leaves(module):
    """Composer's list: modules with parameters and without children, depth first in the order of their definition."""
    children = [child for child in module._modules.values() if child is not None]
    if not children:
        return [module] if any(True for _ in module.parameters()) else []
    return [leaf for child in children for leaf in leaves(child)]


def first_leaves(model, fraction):
    """The first leaves, never the last one of the model."""
    found = leaves(model)
    return found[: min(round(fraction * len(found)), len(found) - 1)]


def frozen_names(model, fraction):
    frozen = {id(parameter) for leaf in first_leaves(model, fraction) for parameter in leaf.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in frozen]


def export(name, folder, count):
    model = build(name)
    inputs, labels = SPECS[name].make(np.random.default_rng(0), count)
    np.savez(f"{folder}/data.npz", x=inputs, labels=labels.astype(np.int64))
    model.eval()
    # Of the root alone: the exporter then neither folds BatchNormalization nor joins equal initializers.
    model.training = True
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.from_numpy(inputs[:2]),), f"{folder}/model.onnx", dynamo=False, opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        )


if __name__ == "__main__":
    export(sys.argv[1], sys.argv[2], int(sys.argv[3]))
