"""Small graphs as exporters and people write them, each odd in one way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.models import build, normal

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Odd:
    model: onnx.ModelProto
    feed: Callable[[int], Feed]


def odd(
    text: str,
    held: Mapping[str, np.ndarray],
    *shape: int,
    opset: int = 17,
    contrib: bool = False,
) -> Odd:
    """A graph with the one input x."""
    model = build(text, held, opset=opset, contrib=contrib)
    return Odd(model, lambda seed: {"x": normal(*shape, seed=seed)})


def constants_inside(made: Odd) -> Odd:
    """The same with its weights in Constant nodes."""
    graph = made.model.graph
    for tensor in graph.initializer:
        node = helper.make_node("Constant", [], [tensor.name], value=tensor)
        graph.node.insert(0, node)
    del graph.initializer[:]
    return made


def named(made: Odd, name: str) -> Odd:
    """The same with this name for every node."""
    for node in made.model.graph.node:
        node.name = name
    return made


def as_inputs(made: Odd) -> Odd:
    """The same as IR version 3 had it: every initializer is an input, too."""
    graph = made.model.graph
    for tensor in graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        graph.input.append(value)
    made.model.ir_version = 3 if made.model.opset_import[0].version < 9 else 8
    return made


def two_gemms(opset: int = 17) -> Odd:
    text = """
    g (float[n,32] x) => (float[n,16] y) {
        h = Gemm <transB = 1> (x, w, b)
        r = Relu (h)
        y = Gemm (r, v)
    }
    """
    held = {"w": normal(32, 32, seed=1), "b": normal(32, seed=2), "v": normal(32, 16, seed=3)}
    return odd(
        text.replace("(r, v)", "(r, v, c)"), held | {"c": normal(16)}, 4, 32, opset=opset
    )


def convolution(
    rank: int, *, attributes: str = "group = 1", weight: tuple[int, ...] = ()
) -> Odd:
    sizes = (9,) * rank
    kernel = weight or (16, 8, *(3,) * rank)
    text = f"""
    g (float[n,8,{",".join(map(str, sizes))}] x) => (float[n,c{",m" * rank}] y) {{
        h = Conv <{attributes}> (x, w, b)
        y = Relu (h)
    }}
    """.replace("m,m,m", "m,k,l").replace("m,m]", "m,k]")
    held = {"w": normal(*kernel, scale=0.2), "b": normal(kernel[0])}
    return odd(text, held, 2, 8, *sizes)


def shared_both_ways() -> Odd:
    text = """
    g (float[n,24] x) => (float[n,24] y) {
        t = Transpose <perm = [1, 0]> (w)
        h = MatMul (x, w)
        r = Tanh (h)
        i = MatMul (r, t)
        z = Add (i, bias)
        y = Gemm <transB = 1> (z, w, bias)
    }
    """
    return odd(text, {"w": normal(24, 24, scale=0.2), "bias": normal(24)}, 3, 24)


def gemm_of_everything() -> Odd:
    text = """
    g (float[32,n] x) => (float[n,16] y) {
        y = Gemm <transA = 1, transB = 1, alpha = 0.25, beta = -3.0> (x, w, c)
    }
    """
    return odd(text, {"w": normal(16, 32), "c": normal(1, 16)}, 32, 5)


def weight_on_the_left() -> Odd:
    text = "g (float[24,n] x) => (float[16,n] y) { y = MatMul (w, x) }"
    return odd(text, {"w": normal(16, 24)}, 24, 5)


def vectors() -> Odd:
    text = """
    g (float[n,32] x) => (float[n] y, float s) {
        y = MatMul (x, w)
        s = MatMul (w, w)
    }
    """
    return odd(text, {"w": normal(32)}, 4, 32)


def stacked_matrices() -> Odd:
    text = "g (float[3,n,16] x) => (float[3,n,24] y) { y = MatMul (x, w) }"
    return odd(text, {"w": normal(3, 16, 24)}, 3, 5, 16)


def empty_and_scalar() -> Odd:
    text = """
    g (float[n,32] x) => (float[n,32] y, float[z,32] nothing) {
        h = MatMul (x, w)
        k = Mul (h, two)
        y = Add (k, two)
        nothing = MatMul (none, w)
    }
    """
    held = {"w": normal(32, 32), "two": np.array(2, np.float32), "none": np.empty((0, 32), "f")}
    return odd(text, held, 4, 32)


def holding(value: float) -> Odd:
    weight = normal(32, 32)
    weight[3, 5] = value
    text = "g (float[n,32] x) => (float[n,32] y) { h = MatMul (x, w)  y = MatMul (h, v) }"
    return odd(text, {"w": weight, "v": normal(32, 32, seed=1)}, 4, 32)


def zero_weights() -> Odd:
    made = two_gemms()
    zeros = numpy_helper.from_array(np.zeros((32, 32), np.float32), "w")
    made.model.graph.initializer[0].CopyFrom(zeros)
    return made


def huge_constant() -> Odd:
    text = """
    g (float[n,32] x) => (float[n,32] y) {
        h = MatMul (x, w)
        m = Add (h, mask)
        s = Softmax (m)
        y = MatMul (s, w)
    }
    """
    mask = np.zeros((1, 32), np.float32)
    mask[0, 7:] = -3.4e38
    return odd(text, {"w": normal(32, 32), "mask": mask}, 4, 32)


def unused_and_text() -> Odd:
    text = """
    g (float[n,32] x, string[n] label, float[2] spare) => (float[n,32] y, string[n] same) {
        y = MatMul (x, w)
        same = Identity (label)
    }
    """
    model = build(text, {"w": normal(32, 32)})

    def feed(seed: int) -> Feed:
        labels = np.array(["a", "b", "", "d"], object)
        return {"x": normal(4, 32, seed=seed), "label": labels, "spare": normal(2)}

    return Odd(model, feed)


def function() -> Odd:
    made = two_gemms()
    body = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["c"],
        [
            helper.make_node(
                "Constant", [], ["w"], value=numpy_helper.from_array(normal(16, 16))
            ),
            helper.make_node("MatMul", ["a", "w"], ["b"], name="one"),
            helper.make_node("MatMul", ["b", "w"], ["c"], name="two"),
        ],
        [helper.make_opsetid("", 17)],
    )
    made.model.functions.append(body)
    made.model.opset_import.append(helper.make_opsetid("local", 1))
    made.model.graph.node[-1].output[0] = "before"
    made.model.graph.node.append(helper.make_node("Twice", ["before"], ["y"], domain="local"))
    return made


def sparse() -> Odd:
    made = two_gemms()
    graph = made.model.graph
    weight = numpy_helper.to_array(graph.initializer[2]).copy()
    weight[np.abs(weight) < 1] = 0
    places = np.flatnonzero(weight)
    values = helper.make_tensor("v", TensorProto.FLOAT, [len(places)], weight.ravel()[places])
    indices = helper.make_tensor("v_places", TensorProto.INT64, [len(places)], places)
    del graph.initializer[2]
    graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, indices, list(weight.shape))
    )
    return made


def loop() -> Odd:
    text = """
    g (float[n,32] x) => (float[n,32] y) {
        y = Loop (times, always, x) <
            body = step (int64 i, bool go, float[n,32] a) => (bool on, float[n,32] b) {
                on = Identity (go)
                h = MatMul (a, w)
                b = Tanh (h)
            }
        >
    }
    """
    held = {"w": normal(32, 32), "times": np.array(3), "always": np.array(True)}
    return odd(text, held, 4, 32)


def machine_learning() -> Odd:
    text = "g (float[n,32] x) => (float[n,32] y) { s = Identity (x)  y = MatMul (s, w) }"
    made = odd(text, {"w": normal(32, 32)}, 4, 32)
    scaler = helper.make_node(
        "Scaler", ["x"], ["s"], domain="ai.onnx.ml", offset=[0.5], scale=[2.0]
    )
    made.model.graph.node[0].CopyFrom(scaler)
    made.model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return made


def recurrent(op: str, gates: int) -> Odd:
    text = f"""
    g (float[t,n,16] x) => (float[t,1,n,16] y) {{
        y = {op} <hidden_size = 16> (x, w, r)
    }}
    """
    held = {"w": normal(1, gates * 16, 16), "r": normal(1, gates * 16, 16, seed=1)}
    return odd(text, held, 5, 2, 16)


def transposed_convolution() -> Odd:
    text = """
    g (float[n,8,9,9] x) => (float[n,16,m,k] y) {
        h = Conv <pads = [1, 1, 1, 1]> (x, v)
        y = ConvTranspose <strides = [2, 2]> (h, w)
    }
    """
    return odd(text, {"v": normal(8, 8, 3, 3), "w": normal(8, 16, 2, 2)}, 2, 8, 9, 9)


def dynamic_weight() -> Odd:
    text = """
    g (float[n,32] x) => (float[n,n] y) {
        h = MatMul (x, w)
        t = Transpose <perm = [1, 0]> (h)
        y = Gemm (x, t)
    }
    """
    return odd(text, {"w": normal(32, 32)}, 4, 32)


def double() -> Odd:
    text = "g (double[n,32] x) => (double[n,32] y) { y = MatMul (x, w) }"
    model = build(text, {"w": normal(32, 32).astype(np.float64)})
    return Odd(model, lambda seed: {"x": normal(4, 32, seed=seed).astype(np.float64)})


def half() -> Odd:
    text = """
    g (float16[n,8,9,9] x) => (float16[n,16] y) {
        h = Conv (x, w)
        p = GlobalAveragePool (h)
        f = Flatten (p)
        y = MatMul (f, v)
    }
    """
    held = {"w": normal(16, 8, 3, 3), "v": normal(16, 16)}
    model = build(text, {name: array.astype(np.float16) for name, array in held.items()})
    return Odd(model, lambda seed: {"x": normal(2, 8, 9, 9, seed=seed).astype(np.float16)})


def output_is_read_and_weight_is_output() -> Odd:
    text = """
    g (float[n,32] x) => (float[n,32] y, float[n,32] h, float[32,32] w2) {
        h = MatMul (x, w)
        w2 = Identity (w)
        y = MatMul (h, w)
    }
    """
    return odd(text, {"w": normal(32, 32)}, 4, 32)


GRAPHS: dict[str, Callable[[], Odd]] = {
    **{f"opset {n}": (lambda n=n: two_gemms(n)) for n in (7, 9, 11, 12, 13, 21)},
    "weights in Constant nodes": lambda: constants_inside(two_gemms()),
    "initializers that are inputs": lambda: as_inputs(two_gemms(8)),
    "no names": lambda: named(two_gemms(), ""),
    "a weight used plain and transposed": shared_both_ways,
    "Conv1d": lambda: convolution(1),
    "Conv3d": lambda: convolution(3),
    "grouped Conv": lambda: convolution(2, attributes="group = 2", weight=(16, 4, 3, 3)),
    "SAME_LOWER": lambda: convolution(
        2, attributes='auto_pad = "SAME_LOWER", strides = [2, 2]'
    ),
    "ConvTranspose": transposed_convolution,
    "Gemm with every attribute": gemm_of_everything,
    "MatMul with its weight on the left": weight_on_the_left,
    "MatMul of vectors": vectors,
    "MatMul of stacked matrices": stacked_matrices,
    "empty and scalar constants": empty_and_scalar,
    "zero weights": zero_weights,
    "a NaN": lambda: holding(np.nan),
    "an infinity": lambda: holding(np.inf),
    "a huge weight": lambda: holding(1e30),
    "a tiny weight": lambda: holding(1e-42),
    "a huge mask": huge_constant,
    "unused inputs and strings": unused_and_text,
    "a function": function,
    "a Loop": loop,
    "ai.onnx.ml": machine_learning,
    "GRU": lambda: recurrent("GRU", 3),
    "RNN": lambda: recurrent("RNN", 1),
    "LSTM": lambda: recurrent("LSTM", 4),
    "a computed weight": dynamic_weight,
    "double": double,
    "half": half,
    "outputs that are read": output_is_read_and_weight_is_output,
}
