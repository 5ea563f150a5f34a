"""Builds a dry CUDA device: stand-ins for NVIDIA's libraries with which ONNX Runtime's CUDA execution provider makes
sessions, places nodes, allocates, copies and binds on a machine without a GPU. It is a tool for development. It
computes NOTHING: kernels do not run, outputs are whatever the memory held, and no run on it trains anything.

    python make.py PROVIDER --out DIR      # PROVIDER: libonnxruntime_providers_cuda.so, for the symbols it needs
    LD_LIBRARY_PATH=DIR:$LD_LIBRARY_PATH python -c "import onnxruntime ..."

DIR gets libcuda.so.1, libcudart.so.13, libcublas.so.13, libcublasLt.so.13, libcurand.so.10, libcudnn.so.9 and the two
of TensorRT. Every symbol that PROVIDER needs of them is there: where a file beside this one writes it, as written there,
else as a function that returns 0 (success). The environment variables are in driver.c's head. NVRTC is not part of it:
the real one compiles without a GPU. Needs gcc and nm.
"""

import argparse
import pathlib
import re
import subprocess

HERE = pathlib.Path(__file__).parent
# Library, sources, symbol prefixes of what it must have, further flags.
LIBRARIES = [
    ("libcuda.so.1", ["driver.c"], r"cu[A-Z]", ["-ldl", "-lpthread"]),
    ("libcudart.so.13", ["runtime.c"], r"(__)?cuda[A-Z]", ["-ldl"]),
    ("libcublasLt.so.13", ["blas.c"], r"cublasLt[A-Z]", ["-DLT"]),
    ("libcublas.so.13", ["blas.c"], r"cublas(?!Lt)[A-Z]", []),
    ("libcurand.so.10", [], r"curand[A-Z]", []),
    ("libcudnn.so.9", ["dnn.c"], r"cudnn[A-Z]", []),
    ("libnvinfer.so.10", ["tensorrt.c"], r"$", []),
    ("libnvonnxparser.so.10", ["tensorrt.c"], r"$", []),
]


def symbols(path, which):
    """Names and versions of a library's dynamic symbols."""
    text = subprocess.run(["nm", "-D", which, str(path)], check=True, capture_output=True, text=True).stdout
    return [tuple((line.split()[-1].split("@") + [""])[:2]) for line in text.splitlines()]


def needed(provider):
    """Symbol and version that the provider needs, by library."""
    undefined = symbols(provider, "--undefined-only")
    own = r"$|GLIBC|GCC|CXX"
    return [(name, version) for name, version in undefined if not re.match(own, version) or re.match("cu[A-Z]", name)]


def build(out, library, sources, flags, missing, version):
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    stubs = work / f"{library}.c"
    stubs.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in missing))
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", "-fno-builtin", f"-Wl,-soname,{library}", f"-I{HERE}"]
    if version:
        script = work / f"{library}.map"
        script.write_text(f"{version} {{ global: *; }};\n")
        command.append(f"-Wl,--version-script={script}")
    sources = [str(HERE / source) for source in sources]
    driver = [] if library == "libcuda.so.1" else [f"-L{out}", "-l:libcuda.so.1", "-Wl,-rpath,$ORIGIN"]
    subprocess.run(command + ["-o", str(out / library), *sources, str(stubs), *flags, *driver], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("provider", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    wanted = needed(arguments.provider)
    for library, sources, prefix, flags in LIBRARIES:
        of_it = [(name, version) for name, version in wanted if re.match(prefix, name)]
        version = next((version for _, version in of_it if version), "")
        build(out, library, sources, flags, [], version)
        there = {name for name, _ in symbols(out / library, "--defined-only")}
        missing = sorted({name for name, _ in of_it} - there)
        build(out, library, sources, flags, missing, version)
        plain = out / re.sub(r"\.so.*", ".so", library)
        plain.unlink(missing_ok=True)
        plain.symlink_to(library)
        print(f"{library}: {len(there)} written, {len(missing)} return 0")


if __name__ == "__main__":
    main()
