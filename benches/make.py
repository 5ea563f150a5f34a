"""Makes the models that `preview.rs` measures: `python benches/make.py [FOLDER]`.

FOLDER is `target/preview` by default. Weights of the large model are a sparse file: it has its
full length and takes no room on the disk.

Needs torch, torchvision, onnx, onnxscript and numpy.
"""

import contextlib
import io
import os
import sys
import warnings

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))


def resnet50(folder):
    """torchvision's ResNet-50, by both exporters, nothing folded."""
    import torch
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).train()
    x = torch.zeros(2, 3, 224, 224)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (x,), os.path.join(folder, "resnet50.torchscript.onnx"), dynamo=False, opset_version=17,
            training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        )
        torch.onnx.export(
            model, (x,), os.path.join(folder, "resnet50.dynamo.onnx"), dynamo=True, opset_version=18, optimize=False,
            external_data=False, input_names=["x"], output_names=["y"], verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )


class Graph:
    """Nodes and initializers with the names that PyTorch's TorchScript exporter gives."""

    def __init__(self):
        self.nodes, self.initializers = [], []
        self.counter, self.offset = 0, 0

    def op(self, scope, op, *inputs, **attributes):
        self.counter += 1
        node = f"{scope}/{op}_{self.counter}"
        output = f"{node}_output_0"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=node, **attributes))
        return output

    def ints(self, scope, value):
        tensor = numpy_helper.from_array(np.asarray(value, np.int64))
        return self.op(scope, "Constant", value=tensor)

    def number(self, scope, value, dtype):
        return self.op(scope, "Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def external(self, name, shape, dtype, location):
        """A weight of which the file holds nothing but the place."""
        size = int(np.prod(shape)) * {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2}[dtype]
        tensor = TensorProto(name=name, data_type=dtype, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", location), ("offset", self.offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        self.offset += (size + 4095) // 4096 * 4096
        self.initializers.append(tensor)
        return name


def llama(folder, layers=32, hidden=4096, heads=32, ffn=11008, vocabulary=32000):
    """A Llama-style model of 7 billion parameters in float16, with the shape arithmetic that exporters write."""
    g, data, half = Graph(), "llama7b.data", TensorProto.FLOAT16
    width = hidden // heads

    def weight(name, *shape):
        return g.external(name, shape, half, data)

    def size(scope, value, axis):
        return g.op(scope, "Gather", g.op(scope, "Shape", value), g.ints(scope, axis), axis=0)

    def shape(scope, *parts):
        parts = [p if isinstance(p, str) else g.ints(scope, p) for p in parts]
        axes = g.ints(scope, [0])
        return g.op(scope, "Concat", *(g.op(scope, "Unsqueeze", p, axes) for p in parts), axis=0)

    def norm(scope, x, name):
        wide = g.op(scope, "Cast", x, to=TensorProto.FLOAT)
        square = g.op(scope, "Pow", wide, g.number(scope, 2, np.float32))
        mean = g.op(scope, "ReduceMean", square, axes=[-1])
        root = g.op(scope, "Sqrt", g.op(scope, "Add", mean, g.number(scope, 1e-5, np.float32)))
        scaled = g.op(scope, "Mul", wide, g.op(scope, "Div", g.number(scope, 1, np.float32), root))
        return g.op(scope, "Mul", weight(name, hidden), g.op(scope, "Cast", scaled, to=half))

    def linear(scope, x, name, rows, columns):
        transposed = g.op(scope, "Transpose", weight(f"{name}.weight", rows, columns), perm=[1, 0])
        return g.op(scope, "MatMul", x, transposed)

    def rotate(scope, x, cos, sin):
        halves = [
            g.op(scope, "Slice", x, *(g.ints(scope, [v]) for v in (start, end, 3, 1)))
            for start, end in ((0, width // 2), (width // 2, 2**63 - 1))
        ]
        turned = g.op(scope, "Concat", g.op(scope, "Neg", halves[1]), halves[0], axis=-1)
        return g.op(scope, "Add", g.op(scope, "Mul", x, cos), g.op(scope, "Mul", turned, sin))

    top = "/model"
    x = g.op(top + "/embed_tokens", "Gather", weight("model.embed_tokens.weight", vocabulary, hidden), "input_ids")
    length = size(top, "input_ids", 1)
    positions = g.op(top, "Range", g.ints(top, 0), length, g.ints(top, 1))
    frequency = numpy_helper.from_array((10000.0 ** (-np.arange(0, width, 2) / width)).astype(np.float32))
    frequency.name = "model.rotary_emb.inv_freq"
    g.initializers.append(frequency)
    rotary = top + "/rotary_emb"
    column = g.op(rotary, "Unsqueeze", g.op(rotary, "Cast", positions, to=TensorProto.FLOAT), g.ints(rotary, [1]))
    angles = g.op(rotary, "Mul", column, frequency.name)
    angles = g.op(rotary, "Concat", angles, angles, axis=-1)
    cos = g.op(rotary, "Cast", g.op(rotary, "Cos", angles), to=half)
    sin = g.op(rotary, "Cast", g.op(rotary, "Sin", angles), to=half)
    square = shape(top, length, length)
    mask = g.op(top, "ConstantOfShape", square, value=numpy_helper.from_array(np.array([-65504], np.float16)))
    mask = g.op(top, "Trilu", mask, g.ints(top, 1), upper=1)
    for layer in range(layers):
        scope, name = f"{top}/layers.{layer}", f"model.layers.{layer}"
        attention = scope + "/self_attn"
        normed = norm(scope + "/input_layernorm", x, f"{name}.input_layernorm.weight")
        batch, length = size(attention, normed, 0), size(attention, normed, 1)
        split = []
        for part in ("q_proj", "k_proj", "v_proj"):
            made = linear(f"{attention}/{part}", normed, f"{name}.self_attn.{part}", hidden, hidden)
            made = g.op(attention, "Reshape", made, shape(attention, batch, length, heads, width))
            split.append(g.op(attention, "Transpose", made, perm=[0, 2, 1, 3]))
        q, k, v = split
        q, k = rotate(attention, q, cos, sin), rotate(attention, k, cos, sin)
        scores = g.op(attention, "MatMul", q, g.op(attention, "Transpose", k, perm=[0, 1, 3, 2]))
        scores = g.op(attention, "Div", scores, g.number(attention, width**0.5, np.float16))
        weights = g.op(attention, "Softmax", g.op(attention, "Add", scores, mask), axis=-1)
        mixed = g.op(attention, "Transpose", g.op(attention, "MatMul", weights, v), perm=[0, 2, 1, 3])
        mixed = g.op(attention, "Reshape", mixed, shape(attention, batch, length, hidden))
        mixed = linear(f"{attention}/o_proj", mixed, f"{name}.self_attn.o_proj", hidden, hidden)
        x = g.op(scope, "Add", x, mixed)
        normed = norm(scope + "/post_attention_layernorm", x, f"{name}.post_attention_layernorm.weight")
        mlp = scope + "/mlp"
        gate = linear(mlp + "/gate_proj", normed, f"{name}.mlp.gate_proj", ffn, hidden)
        gate = g.op(mlp + "/act_fn", "Mul", gate, g.op(mlp + "/act_fn", "Sigmoid", gate))
        up = linear(mlp + "/up_proj", normed, f"{name}.mlp.up_proj", ffn, hidden)
        down = linear(mlp + "/down_proj", g.op(mlp, "Mul", gate, up), f"{name}.mlp.down_proj", hidden, ffn)
        x = g.op(scope, "Add", x, down)
    x = norm(top + "/norm", x, "model.norm.weight")
    logits = linear("/lm_head", x, "lm_head", vocabulary, hidden)
    g.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="/Identity"))
    save(folder, "llama7b", g, [("input_ids", TensorProto.INT64, ["batch", "sequence"])],
         [("logits", half, ["batch", "sequence", vocabulary])])
    with open(os.path.join(folder, data), "wb") as file:
        file.truncate(g.offset)


def chain(folder, nodes):
    """Residual blocks of five nodes, each with its parameters in the file."""
    g = Graph()
    weight = numpy_helper.from_array(np.full((4, 4), 0.5, np.float32))
    bias = numpy_helper.from_array(np.full((4,), 0.25, np.float32))
    x = "x"
    for block in range(nodes // 5):
        name, scope = f"layers.{block}", f"/layers.{block}"
        for part, value in (("weight", weight), ("bias", bias)):
            tensor = TensorProto()
            tensor.CopyFrom(value)
            tensor.name = f"{name}.linear.{part}"
            g.initializers.append(tensor)
        linear = scope + "/linear"
        made = g.op(linear, "MatMul", x, g.op(linear, "Transpose", f"{name}.linear.weight", perm=[1, 0]))
        made = g.op(scope + "/act", "Relu", g.op(linear, "Add", f"{name}.linear.bias", made))
        x = g.op(scope, "Add", x, made)
    g.nodes[-1].output[0] = "y"
    save(folder, f"chain{nodes}", g, [("x", TensorProto.FLOAT, ["batch", 4])], [("y", TensorProto.FLOAT, ["batch", 4])])


def save(folder, name, g, inputs, outputs):
    graph = helper.make_graph(
        g.nodes, name, [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs], g.initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="pytorch", producer_version="2.9.0"
    )
    with open(os.path.join(folder, name + ".onnx"), "wb") as file:
        file.write(model.SerializeToString(deterministic=True))
    print(name, len(g.nodes), "nodes", len(g.initializers), "initializers")


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(HERE), "target", "preview")
    os.makedirs(folder, exist_ok=True)
    llama(folder)
    for nodes in (6250, 12500, 25000, 50000):
        chain(folder, nodes)
    resnet50(folder)
