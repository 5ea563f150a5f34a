"""Convolutions of three networks on one thread: ours against PyTorch's, interleaved.

    cargo bench -p freeze-plan-kernels --bench conv --no-run     # prints the program's path
    python kernels/benches/conv.py PROGRAM [NETWORK] [ROUNDS]

Per layer and direction: GFLOP/s of PyTorch and of ours (of the least times), and our time over PyTorch's.
"""

import subprocess
import sys
import time

import torch

torch.set_num_threads(1)

# batch, height, width, in, out, kernel, stride, pad, how often in the network
NETWORKS = {
    "resnet56": [
        (64, 32, 32, 3, 16, 3, 1, 1, 1),
        (64, 32, 32, 16, 16, 3, 1, 1, 18),
        (64, 32, 32, 16, 32, 3, 2, 1, 1),
        (64, 32, 32, 16, 32, 1, 2, 0, 1),
        (64, 16, 16, 32, 32, 3, 1, 1, 17),
        (64, 16, 16, 32, 64, 3, 2, 1, 1),
        (64, 16, 16, 32, 64, 1, 2, 0, 1),
        (64, 8, 8, 64, 64, 3, 1, 1, 17),
    ],
    "resnet18": [
        (16, 112, 112, 3, 64, 7, 2, 3, 1),
        (16, 28, 28, 64, 64, 3, 1, 1, 4),
        (16, 28, 28, 64, 128, 3, 2, 1, 1),
        (16, 28, 28, 64, 128, 1, 2, 0, 1),
        (16, 14, 14, 128, 128, 3, 1, 1, 3),
        (16, 14, 14, 128, 256, 3, 2, 1, 1),
        (16, 14, 14, 128, 256, 1, 2, 0, 1),
        (16, 7, 7, 256, 256, 3, 1, 1, 3),
        (16, 7, 7, 256, 512, 3, 2, 1, 1),
        (16, 7, 7, 256, 512, 1, 2, 0, 1),
        (16, 4, 4, 512, 512, 3, 1, 1, 3),
    ],
    "mobilenet": [
        (16, 112, 112, 3, 32, 3, 2, 1, 1),
        (16, 56, 56, 32, 16, 1, 1, 0, 1),
        (16, 56, 56, 16, 96, 1, 1, 0, 1),
        (16, 28, 28, 96, 24, 1, 1, 0, 1),
        (16, 28, 28, 24, 144, 1, 1, 0, 2),
        (16, 28, 28, 144, 24, 1, 1, 0, 1),
        (16, 14, 14, 144, 32, 1, 1, 0, 1),
        (16, 14, 14, 32, 192, 1, 1, 0, 3),
        (16, 14, 14, 192, 32, 1, 1, 0, 2),
        (16, 7, 7, 192, 64, 1, 1, 0, 1),
        (16, 7, 7, 64, 384, 1, 1, 0, 4),
        (16, 7, 7, 384, 64, 1, 1, 0, 3),
        (16, 7, 7, 384, 96, 1, 1, 0, 1),
        (16, 7, 7, 96, 576, 1, 1, 0, 3),
        (16, 7, 7, 576, 96, 1, 1, 0, 2),
        (16, 4, 4, 576, 160, 1, 1, 0, 1),
        (16, 4, 4, 160, 960, 1, 1, 0, 3),
        (16, 4, 4, 960, 160, 1, 1, 0, 2),
        (16, 4, 4, 960, 320, 1, 1, 0, 1),
        (16, 4, 4, 320, 1280, 1, 1, 0, 1),
    ],
}
DIRECTIONS = ["forward", "input", "weight"]


def torch_call(layer, direction):
    n, h, w, c, m, k, s, p, _ = layer
    x = torch.randn(n, c, h, w).to(memory_format=torch.channels_last)
    weight = torch.randn(m, c, k, k).to(memory_format=torch.channels_last)
    y = torch.nn.functional.conv2d(x, weight, None, s, p)
    if direction == "forward":
        return lambda: torch.nn.functional.conv2d(x, weight, None, s, p)
    mask = [direction == "input", direction == "weight", False]
    dy = torch.randn_like(y)
    return lambda: torch.ops.aten.convolution_backward(dy, x, weight, None, [s, s], [p, p], [1, 1], False, [0, 0], 1, mask)


def main():
    program = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    for name, layers in NETWORKS.items():
        if wanted not in name:
            continue
        sums = {direction: [0.0, 0.0] for direction in DIRECTIONS}
        print(f"{name:34}" + "".join(f"{direction:>24}" for direction in DIRECTIONS))
        for layer in layers:
            n, h, w, c, m, k, s, p, count = layer
            out = [(size + 2 * p - k) // s + 1 for size in (h, w)]
            flops = 2 * n * out[0] * out[1] * m * c * k * k
            cells = []
            for direction in DIRECTIONS:
                theirs, ours = [], []
                with torch.no_grad():
                    call = torch_call(layer, direction)
                    call()
                    for _ in range(rounds):
                        for _ in range(5):
                            start = time.perf_counter()
                            call()
                            theirs.append(time.perf_counter() - start)
                        program.stdin.write(" ".join(map(str, layer[:8])) + f" {direction} 6\n")
                        program.stdin.flush()
                        ours.append(float(program.stdout.readline().split()[0]))
                theirs, ours = min(theirs), min(ours)
                sums[direction][0] += theirs * count
                sums[direction][1] += ours * count
                cells.append(f"{flops / theirs * 1e-9:9.0f}{flops / ours * 1e-9:7.0f}{ours / theirs:8.2f}")
            print(f"{n:3} {h:3}x{w:<3} {c:4}->{m:<4} {k}x{k}/{s} x{count:<3}    " + "".join(cells), flush=True)
        total = "".join(f"{a * 1e3:9.1f}{b * 1e3:7.1f}{b / a:8.2f}" for a, b in sums.values())
        print(f"{'ms':34}{total}")


main()
