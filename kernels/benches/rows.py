"""The PyTorch side of `rows.rs`: the same shapes, one thread; microseconds, minimum and median.

    python kernels/benches/rows.py [seconds per case]
"""

import sys
import time

import torch
import torch.nn.functional as F


def measure(name, work, seconds):
    work()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    times.sort()
    print(f"{name:<44} {times[0] * 1e6:10.1f} {times[len(times) // 2] * 1e6:10.1f}", flush=True)


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.3
    torch.set_num_threads(1)
    torch.manual_seed(0)
    aten = torch.ops.aten
    for rows, width in [(2048, 256), (2080, 192)]:
        x, dy, scale, bias = torch.randn(rows, width), torch.randn(rows, width), torch.rand(width), torch.rand(width)
        forward = lambda: aten.native_layer_norm(x, [width], scale, bias, 1e-5)
        _, mean, rstd = forward()
        measure(f"layer norm forward {rows}x{width}", forward, seconds)
        backward = lambda: aten.native_layer_norm_backward(dy, x, [width], mean, rstd, scale, bias, [True] * 3)
        measure(f"layer norm backward {rows}x{width}", backward, seconds)
    for rows, width in [(2048, 1024), (2080, 768)]:
        x, dy = torch.randn(rows, width), torch.randn(rows, width)
        for name, form in [("erf", "none"), ("tanh", "tanh")]:
            measure(f"gelu {name} forward {rows}x{width}", lambda: F.gelu(x, approximate=form), seconds)
            measure(
                f"gelu {name} backward {rows}x{width}", lambda: aten.gelu_backward(dy, x, approximate=form), seconds
            )
    for rows, width in [(8192, 128), (6240, 65)]:
        x, dy = torch.randn(rows, width), torch.randn(rows, width)
        y = torch.softmax(x, 1)
        measure(f"softmax forward {rows}x{width}", lambda: torch.softmax(x, 1), seconds)
        measure(
            f"softmax backward {rows}x{width}", lambda: aten._softmax_backward_data(dy, y, 1, torch.float32), seconds
        )
    x = torch.randn(8192, 128)
    measure("dropout 8192x128", lambda: aten.native_dropout(x, 0.1, True), seconds)
    words, dy = torch.randint(0, 30522, (2048,)), torch.randn(2048, 256)
    gradient = lambda: aten.embedding_dense_backward(dy, words, 30522, -1, False)
    measure("embedding gradient 2048 of 30522x256", gradient, seconds)
    logits, target = torch.randn(256, 30522, requires_grad=True), torch.randint(0, 30522, (256,))
    measure("cross entropy forward 256x30522", lambda: F.cross_entropy(logits.detach(), target), seconds)
    loss = F.cross_entropy(logits, target)
    gradient = lambda: torch.autograd.grad(loss, logits, retain_graph=True)
    measure("cross entropy backward 256x30522", gradient, seconds)
    for fused in [False, True]:
        table = torch.nn.Parameter(torch.randn(30522, 256))
        table.grad = torch.randn(30522, 256)
        name = " fused" if fused else ""
        measure(f"adamw{name} 30522x256", torch.optim.AdamW([table], fused=fused).step, seconds)
        sgd = torch.optim.SGD([table], lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=fused)
        measure(f"sgd with momentum{name} 30522x256", sgd.step, seconds)


if __name__ == "__main__":
    main()
