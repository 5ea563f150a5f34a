"""Makes the models that `differentiate.rs` measures: `python benches/make_decoders.py [FOLDER]`.

Decoders of GPT's kind with 12 to 96 layers, written out in primitives (opset 16, TorchScript), with
a symbolic batch and sequence. FOLDER is `target/differentiate` by default. Needs torch and onnx.
"""

import contextlib
import io
import math
import os
import sys
import warnings

import torch
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
WIDTH, HEADS, LENGTH, WORDS = 32, 4, 64, 50


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.c_fc, self.c_out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.register_buffer("mask", torch.tril(torch.ones(LENGTH, LENGTH)).view(1, 1, LENGTH, LENGTH))

    def forward(self, x):
        batch, length, width = x.size()
        parts = self.c_attn(self.ln_1(x)).split(width, dim=2)
        q, k, v = (part.view(batch, length, HEADS, width // HEADS).transpose(1, 2) for part in parts)
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(width // HEADS)
        scores = scores.masked_fill(self.mask[:, :, :length, :length] == 0, -1e9).softmax(-1)
        x = x + self.c_proj((scores @ v).transpose(1, 2).reshape(batch, length, width))
        h = self.c_fc(self.ln_2(x))
        h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        return x + self.c_out(h)


class Decoder(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.h = nn.ModuleList([Block() for _ in range(layers)])
        self.ln_f, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.size(1)))
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


def decoder(folder, layers):
    torch.manual_seed(0)
    model = Decoder(layers)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.05)
    file = os.path.join(folder, f"decoder{layers}.onnx")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.zeros(2, 16, dtype=torch.int64),), file, dynamo=False, opset_version=16,
            training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False, input_names=["ids"],
            output_names=["logits"], dynamic_axes={"ids": {0: "batch", 1: "length"}},
        )


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(HERE), "target", "differentiate")
    os.makedirs(folder, exist_ok=True)
    for layers in (12, 24, 48, 96):
        decoder(folder, layers)
