"""Writes src/runner/placement/cuda_kernels.txt: the kernels of ONNX Runtime's CUDA execution provider, as the provider
registers them. Run it with the Python of an environment that has onnxruntime-gpu, on the dry device of make.py:

    LD_LIBRARY_PATH=DIR python kernels.py --out ../../src/runner/placement/cuda_kernels.txt

A line that starts with "op" is an operator: its name, then for each version of its schema (those up to 26) the opset and
which type constraint each input and output has ("*" repeats the last one, "-" has none). The lines under it are kernels:
first and last opset ("-" where the kernel says none, and then ONNX Runtime takes it for that version of the operator
alone), and for each constraint the types it takes. A line that starts with "function" is an operator that neither this
provider nor the CPU's has a kernel of, and the opsets from which ONNX Runtime replaces it by its definition.
"""

import argparse
import collections
import pathlib

import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

# Domains by the prefix of their operators in the file.
DOMAINS = {"": "", "com.microsoft": "com.microsoft:"}
NEWEST = 26
UNBOUNDED = 2**31 - 1
SHORT = {
    "float": "f32", "double": "f64", "float16": "f16", "bfloat16": "bf16", "bool": "bool", "string": "string",
    "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
}  # fmt: skip


def short(kind):
    """A tensor's dtype in Rust's spelling; None for what the program does not read."""
    return SHORT.get(kind.removeprefix("tensor(").removesuffix(")")) if kind.startswith("tensor(") else None


def parameters(schema, constraints):
    """The constraints of a schema's inputs or outputs; a kernel names a type or the parameter itself."""
    names = []
    for parameter in schema:
        found = [name for name in (parameter.typeStr, parameter.name) if name in constraints]
        names.append((found + ["-"])[0])
        if parameter.option == state.schemadef.OpSchema.FormalParameterOption.Variadic:
            names.append("*")
    return ",".join(names)


def rows(kernels):
    """The kernels' opsets and types, those that differ in the types of one constraint as one."""
    found = []
    for kernel in kernels:
        first, last = kernel.version_range
        types = {key: {short(kind) for kind in kinds} - {None} for key, kinds in kernel.type_constraints.items()}
        found.append(((first, "-" if last == UNBOUNDED else str(last)), types))
    merged = True
    while merged:
        merged = False
        for i, (head, types) in enumerate(found):
            for other in found[i + 1 :]:
                differ = [key for key in types if types[key] != other[1].get(key)]
                if other[0] == head and other[1].keys() == types.keys() and len(differ) <= 1:
                    for key in differ:
                        types[key] = types[key] | other[1][key]
                    found.remove(other)
                    merged = True
                    break
    for (first, last), types in sorted(found, key=lambda row: (row[0][0], str(row[1]))):
        yield " ".join([str(first), last, *(f"{key}={','.join(sorted(types[key]))}" for key in sorted(types))])


def functions(kernels):
    """Operators of the default domain that no provider runs and that have a definition, by name."""
    served = collections.defaultdict(list)
    for kernel in kernels:
        if kernel.domain == "" and kernel.provider in ("CPUExecutionProvider", "CUDAExecutionProvider"):
            served[kernel.op_name].append(kernel.version_range)
    found = collections.defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        since = schema.since_version
        if schema.domain or since > NEWEST or not (schema.has_function or schema.has_context_dependent_function):
            continue
        if not any(first == since or first < since <= last < UNBOUNDED for first, last in served[schema.name]):
            found[schema.name].append(since)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out
    kernels = collections.defaultdict(list)
    everything = state.get_all_opkernel_def()
    for kernel in everything:
        if kernel.provider == "CUDAExecutionProvider" and kernel.domain in DOMAINS:
            kernels[kernel.domain, kernel.op_name].append(kernel)
    schemas = collections.defaultdict(dict)
    for schema in state.get_all_operator_schema():
        schemas[schema.domain, schema.name][schema.since_version] = schema
    lines = [f"# Written by benches/dry-cuda/kernels.py from onnxruntime-gpu {onnxruntime.__version__}."]
    for (domain, name), found in sorted(kernels.items()):
        constraints = {key for kernel in found for key in kernel.type_constraints}
        versions = [
            f"{since}:{parameters(schema.inputs, constraints)}>{parameters(schema.outputs, constraints)}"
            for since, schema in sorted(schemas[domain, name].items())
            if since <= NEWEST
        ]
        lines.append(" ".join(["op", DOMAINS[domain] + name, *versions]))
        lines += rows(found)
    for name, since in sorted(functions(everything).items()):
        lines.append(" ".join(["function", name, *map(str, sorted(since))]))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
