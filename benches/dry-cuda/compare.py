"""Holds what `placement.rs` tells of graphs against where ONNX Runtime's CUDA provider puts their nodes, on the dry device
of make.py or a real one, with the Python of an environment that has onnxruntime-gpu:

    LD_LIBRARY_PATH=DIR python compare.py OUT

Graph optimizations are off, so that nodes keep their names. Nodes without a name, as of operators that ONNX Runtime
replaces by their definitions, and graphs that no provider takes are not compared.
"""

import argparse
import collections
import json
import pathlib

import onnxruntime

# Operators whose kernels are there, but fail or compute something else: they are told although the provider takes them.
FAIL_LATER = {"ScatterElements", "ScatterND"}


def placed(path):
    """Name and operator of every node, by provider."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CUDAExecutionProvider"])
    found = collections.defaultdict(dict)
    for part in session.get_provider_graph_assignment_info():
        found[part.ep_name].update({node.name: node.op_type for node in part.get_nodes()})
    return found["CUDAExecutionProvider"], found["CPUExecutionProvider"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    counts = collections.Counter()
    wrong = collections.defaultdict(list)
    for path in sorted(parser.parse_args().out.glob("*.onnx")):
        told = json.loads(path.with_suffix(".json").read_text())
        misplaced = set(told["on_cpu"])
        expected = misplaced | set(told["on_host"])
        try:
            on_device, on_cpu = placed(path)
        except Exception as error:  # ONNX Runtime has no common error of its own
            if "INVALID_GRAPH" in str(error):
                counts["invalid"] += 1
                continue
            counts["refused, told" if misplaced else "refused"] += 1
            if not misplaced:
                wrong["refused", str(error)[-200:].strip()].append(path.name)
            continue
        counts["graphs"] += 1
        counts["nodes on the device"] += len(on_device)
        counts["nodes on the processor"] += len(on_cpu)
        for name, operator in on_cpu.items():
            if name and name not in expected:
                wrong["on the processor, not told", operator].append(f"{path.name} {name}")
        for name, operator in on_device.items():
            if name in expected and operator not in FAIL_LATER:
                wrong["told, on the device", operator].append(f"{path.name} {name}")
    print(dict(counts))
    for what, where in sorted(wrong.items()):
        print(f"{len(where)} x {': '.join(what)}: {', '.join(where[:3])}")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
