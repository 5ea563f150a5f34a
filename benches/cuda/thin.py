"""Thins ONNX Runtime's CUDA provider for one machine: `thin.py PROVIDER OUT [--architecture 90] [--without REGEX]`.

The provider holds its kernels for every architecture of NVIDIA's. This writes a copy in which the code for all others is
zeros, so that it compresses to a part; the copy has the size of the original and works on devices of that architecture
only. `--without` also empties modules all of whose kernels have a name that matches, by default kernels of large language
models (mixtures of experts, quantised weights, decoding), which no graph of ours runs; that needs the Python package
zstandard (or Python 3.14) and is left out with `--without ''`. A kernel that is missing fails when it is started, by name.
"""

import argparse
import re
import struct
from pathlib import Path

LANGUAGE = r"MoeFCGemm|onnxruntime3llm|masked_multihead_attention|GroupProblemShape|moe_gemm|fpA_intB"
MAGIC = b"\x50\xed\x55\xba"
HEADER = struct.Struct("<IHHQ")
CODE, COMPRESSED = 2, 0x8000


def entries(data):
    """Every entry of every fat binary: its head, its data, kind, architecture, flags, bytes of data before padding."""
    at = data.find(MAGIC)
    while at >= 0:
        _, version, head, size = HEADER.unpack_from(data, at)
        end = at + head + size
        if version != 1 or head != 16 or end > len(data):
            at = data.find(MAGIC, at + 4)
            continue
        entry = at + head
        while entry < end:
            kind, _, head, size = struct.unpack_from("<HHIQ", data, entry)
            (used,) = struct.unpack_from("<I", data, entry + 16)
            (architecture,) = struct.unpack_from("<I", data, entry + 28)
            (flags,) = struct.unpack_from("<Q", data, entry + 40)
            (whole,) = struct.unpack_from("<Q", data, entry + 56)
            if head < 64 or entry + head + size > end:
                raise SystemExit(f"no fat binary as known at byte {entry}")
            yield entry + head, size, kind, architecture, flags, used, whole
            entry += head + size
        at = data.find(MAGIC, end)


def decompressor():
    try:
        from compression import zstd

        return lambda data, size: zstd.decompress(data)
    except ImportError:
        import zstandard

        return lambda data, size: zstandard.ZstdDecompressor().decompress(data, max_output_size=size)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("provider", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--architecture", type=int, default=90, help="90 for the H100 and the H200")
    parser.add_argument("--without", default=LANGUAGE, metavar="REGEX")
    arguments = parser.parse_args()
    data = bytearray(arguments.provider.read_bytes())
    whole = decompressor() if arguments.without else None
    unwanted = re.compile(arguments.without.encode()) if arguments.without else None
    kept = dropped = 0
    for at, size, kind, architecture, flags, used, length in entries(bytes(data)):
        keep = architecture == arguments.architecture
        if keep and unwanted and kind == CODE and flags & COMPRESSED:
            code = whole(bytes(data[at : at + used]), length)
            kernels = set(re.findall(rb"\.text\.([\w$.]+)", code))
            keep = not kernels or not all(unwanted.search(kernel) for kernel in kernels)
        if keep:
            kept += size
        else:
            dropped += size
            data[at : at + size] = bytes(size)
    if not kept:
        raise SystemExit(f"{arguments.provider} has no code for architecture {arguments.architecture}")
    arguments.out.write_bytes(data)
    print(f"kept {kept / 1e6:.0f} MB of code, dropped {dropped / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
