"""The PyTorch side of `norm.rs`: the same shapes in channels_last, one thread; microseconds, minimum and median.

    python kernels/benches/norm.py [seconds per case]
"""

import sys
import time

import torch
import torch.nn.functional as F

BATCH_NORM = [(64, 32, 32, 16), (64, 16, 16, 32), (64, 8, 8, 64), (16, 56, 56, 64), (32, 16, 16, 144)]
DEPTHWISE = [(32, 32, 32, 96, 2), (32, 16, 16, 144, 1), (32, 8, 8, 192, 1), (32, 4, 4, 384, 1), (32, 2, 2, 960, 1)]
POOL = [(64, 32, 32, 64, 2, 2, 0), (16, 56, 56, 64, 3, 2, 1)]


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


def last(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for n, h, w, c in BATCH_NORM:
        x, dy = last(n, c, h, w), last(n, c, h, w)
        scale, bias = torch.rand(c), torch.rand(c)
        mean, var = torch.zeros(c), torch.ones(c)
        shape = f"{n}x{h}x{w}x{c}"

        def forward():
            out = torch.native_batch_norm(x, scale, bias, mean, var, True, 0.1, 1e-5)
            return torch.relu_(out[0]), out

        y, (_, saved_mean, saved_inv) = forward()

        def backward():
            dz = torch.ops.aten.threshold_backward(dy, y, 0)
            return torch.ops.aten.native_batch_norm_backward(
                dz, x, scale, mean, var, saved_mean, saved_inv, True, 1e-5, [True, True, True]
            )

        with torch.no_grad():
            measure(f"bn relu forward {shape}", forward, seconds)
            measure(f"bn relu backward {shape}", backward, seconds)
    for n, h, w, c, stride in DEPTHWISE:
        x, weight = last(n, c, h, w), torch.randn(c, 1, 3, 3)
        with torch.no_grad():
            dy = torch.randn_like(F.conv2d(x, weight, None, stride, 1, 1, c))
        shape = f"{n}x{h}x{w}x{c} s{stride}"

        def gradient(mask):
            return torch.ops.aten.convolution_backward(
                dy, x, weight, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], c, mask
            )

        with torch.no_grad():
            measure(f"depthwise forward {shape}", lambda: F.conv2d(x, weight, None, stride, 1, 1, c), seconds)
            measure(f"depthwise input gradient {shape}", lambda: gradient([True, False, False]), seconds)
            measure(f"depthwise weight gradient {shape}", lambda: gradient([False, True, False]), seconds)
    for n, h, w, c, kernel, stride, pad in POOL:
        x = last(n, c, h, w)
        with torch.no_grad():
            y, indices = torch.ops.aten.max_pool2d_with_indices(x, [kernel] * 2, [stride] * 2, [pad] * 2)
            dy = torch.randn_like(y)
            pool = ([kernel] * 2, [stride] * 2, [pad] * 2, [1, 1], False)
            shape = f"{n}x{h}x{w}x{c} k{kernel} s{stride}"
            measure(f"max pool forward {shape}", lambda: torch.ops.aten.max_pool2d_with_indices(x, *pool), seconds)
            measure(
                f"max pool gradient {shape}",
                lambda: torch.ops.aten.max_pool2d_with_indices_backward(dy, x, *pool, indices),
                seconds,
            )


main()
