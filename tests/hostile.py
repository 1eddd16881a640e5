"""Models that a stranger might send, each made here, and the codes they may fail with (R6)."""

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'

Maker = Callable[[Path], bytes]


def _text(body: str, head: str = HEAD) -> bytes:
    return parser.parse_model(f"{head}\n{body}").SerializeToString()


def _big_number(size: int) -> bytes:
    """A protobuf varint."""
    digits = bytearray()
    while size > 127:
        digits.append(size & 127 | 128)
        size >>= 7
    return bytes([*digits, size])


def empty_nodes(_: Path) -> bytes:
    """Five megabytes that become gigabytes of node objects."""
    graph = b"\x0a\x00" * 2_500_000
    return b"\x08\x08\x42\x02\x10\x11\x3a" + _big_number(len(graph)) + graph


def endless_loop(_: Path) -> bytes:
    return _text("""
    net (float[1] x) => (float[1] y) {
        many = Constant <value = int64 {9223372036854775807}> ()
        go = Constant <value = bool {1}> ()
        y = Loop (many, go, x) <body =
            again (int64 i, bool c, float[1] v) => (bool d, float[1] w)
            { d = Identity (c)  w = Sin (v) }>
    }""")


def huge_constant(_: Path) -> bytes:
    return _text("""
    net (float[1] x) => (float[n] y) {
        shape = Constant <value = int64[1] {10000000000}> ()
        zeros = ConstantOfShape (shape)
        y = Add (zeros, x)
    }""")


def huge_expansion(_: Path) -> bytes:
    return _text("""
    net (float[1] x) => (float[a,b,c] y) {
        shape = Constant <value = int64[3] {4096, 4096, 4096}> ()
        y = Expand (x, shape)
    }""")


def lying_dimensions(dims: list[int]) -> Maker:
    def make(_: Path) -> bytes:
        model = parser.parse_model(
            f"{HEAD} net (float[1] x) => (float[1] y) {{ y = Add (x, w) }}"
        )
        weight = model.graph.initializer.add()
        weight.name, weight.data_type, weight.raw_data = "w", TensorProto.FLOAT, b"abcd"
        weight.dims.extend(dims)
        return model.SerializeToString()

    return make


def external(location: str, **entries: str) -> Maker:
    """A model, in a zip with a data file, whose weight lies elsewhere."""

    def make(_: Path) -> bytes:
        model = parser.parse_model(
            f"{HEAD} net (float[4] x) => (float[4] y) {{ y = Add (x, w) }}"
        )
        weight = model.graph.initializer.add()
        weight.name, weight.data_type = "w", TensorProto.FLOAT
        weight.dims.extend([4])
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "length": "16", **entries}.items():
            weight.external_data.add(key=key, value=value)
        return zipped({"model.onnx": model.SerializeToString(), "w.bin": bytes(16)})

    return make


def zipped(files: dict[str, bytes], *, mode: dict[str, int] | None = None) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (mode or {}).get(name, stat.S_IFREG | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return content.getvalue()


def special_entry(kind: int, target: bytes) -> Maker:
    """A zip whose data file is a link, a FIFO or a device."""

    def make(path: Path) -> bytes:
        inner = external("w.bin")(path)
        with zipfile.ZipFile(io.BytesIO(inner)) as archive:
            model = archive.read("model.onnx")
        return zipped({"model.onnx": model, "w.bin": target}, mode={"w.bin": kind | 0o777})

    return make


def zip_bomb(_: Path) -> bytes:
    return zipped({"model.onnx": endless_loop(_), "w.bin": bytes(300 << 20)})


def zip_slip(_: Path) -> bytes:
    return zipped({"model.onnx": endless_loop(_), "../../outside/mine": b"mine"})


def deep_nesting(_: Path) -> bytes:
    """If within If, as deep as protobuf lets us write it."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y0"])], "g", [],
        [helper.make_tensor_value_info("y0", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    for depth in range(1, 30):
        name = f"y{depth}"
        node = helper.make_node("If", ["c"], [name], then_branch=body, else_branch=body)
        if depth > 1:  # twice the branches at each level would be a bomb of its own
            node.attribute[1].g.CopyFrom(_constant(f"z{depth}"))
        body = helper.make_graph(
            [node], "g", [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])]
        )
    body.input.extend([
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ])  # fmt: skip
    return helper.make_model(
        body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def _constant(name: str) -> onnx.GraphProto:
    value = numpy_helper.from_array(np.zeros(1, np.float32))
    return helper.make_graph(
        [helper.make_node("Constant", [], [name], value=value)], "k", [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])],
    )  # fmt: skip


def many_branches(_: Path) -> bytes:
    """If within If, both branches alike: 2^14 graphs."""
    body = _constant("y0")
    for depth in range(1, 15):
        node = helper.make_node("If", ["c"], [f"y{depth}"], then_branch=body, else_branch=body)
        output = helper.make_tensor_value_info(f"y{depth}", TensorProto.FLOAT, [1])
        body = helper.make_graph([node], "g", [], [output])
    body.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    return helper.make_model(
        body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def recursive_function(_: Path) -> bytes:
    return _text(
        """net (float[1] x) => (float[1] y) { y = own.again (x) }
        <domain: "own", opset_import: ["own" : 1]>
        again (a) => (b) { b = own.again (a) }""",
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]>',
    )


def cycle(_: Path) -> bytes:
    return _text("net (float[1] x) => (float[1] y) { y = Add (x, z)  z = Add (y, x) }")


def colliding_names(_: Path) -> bytes:
    return _text("net (float[1] x) => (float[1] y) { y = Add (x, x)  y = Mul (x, x) }")


def no_number_for_a_size(_: Path) -> bytes:
    """A size that comes from NaN."""
    model = parser.parse_model(
        f"{HEAD} net (float[1,1,4,4] x) => (float[a,b,c,d] y) {{ y = Resize (x, r, s) }}"
    )
    scales = np.array([1, 1, np.nan, np.inf], np.float32)
    model.graph.initializer.extend([
        numpy_helper.from_array(np.zeros(0, np.float32), "r"),
        numpy_helper.from_array(scales, "s"),
    ])  # fmt: skip
    return model.SerializeToString()


def foreign_operator(_: Path) -> bytes:
    return _text(
        "net (float[1] x) => (float[1] y) { y = evil.System (x) }",
        '<ir_version: 8, opset_import: ["" : 17, "evil" : 1]>',
    )


def contrib_operator(_: Path) -> bytes:
    """A kernel of ONNX Runtime whose attributes do not fit its weights."""
    head = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
    model = parser.parse_model(
        f"{head} net (float[1,32] x) => (float[1,8] y) {{ y = com.microsoft.MatMulNBits "
        "<K = 1048576, N = 65536, bits = 4, block_size = 32> (x, w, s) }"
    )
    model.graph.initializer.extend([
        numpy_helper.from_array(np.zeros((8, 1, 16), np.uint8), "w"),
        numpy_helper.from_array(np.ones(8, np.float32), "s"),
    ])  # fmt: skip
    return model.SerializeToString()


def laughs(_: Path) -> bytes:
    """Functions that call the next one twice: 2^24 nodes when they are inlined."""
    functions = "".join(
        f"""<domain: "own", opset_import: ["" : 17, "own" : 1]>
        f{depth} (a) => (c) {{ b = own.f{depth + 1} (a)  c = own.f{depth + 1} (b) }}\n"""
        for depth in range(24)
    )
    return _text(
        f"""net (float[1] x) => (float[1] y) {{ y = own.f0 (x) }}
        {functions}
        <domain: "own", opset_import: ["" : 17]> f24 (a) => (b) {{ b = Sin (a) }}""",
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]>',
    )


def functions_in_a_circle(_: Path) -> bytes:
    return _text(
        """net (float[1] x) => (float[1] y) { y = own.ping (x) }
        <domain: "own", opset_import: ["own" : 1]> ping (a) => (b) { b = own.pong (a) }
        <domain: "own", opset_import: ["own" : 1]> pong (a) => (b) { b = own.ping (a) }""",
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]>',
    )


def texts(_: Path) -> bytes:
    """Whose feed would be pickled, were it written down as it is."""
    return _text("net (string[4] x) => (string[4] y) { y = Identity (x) }")


def trap(_: Path) -> bytes:
    """The one quotient of whole numbers that has no room: the processor stops the process."""
    return _text("""
    net (int64[1] x) => (int64[1] y) {
        least = Constant <value = int64[1] {-9223372036854775808}> ()
        minus = Constant <value = int64[1] {-1}> ()
        q = Div (least, minus)
        y = Add (x, q)
    }""")


def growing_sequence(_: Path) -> bytes:
    """A loop that keeps all it made."""
    return _text("""
    net (float[1] x) => (int64 y) {
        many = Constant <value = int64 {4611686018427387904}> ()
        go = Constant <value = bool {1}> ()
        shape = Constant <value = int64[1] {1000000}> ()
        one = ConstantOfShape (shape)
        empty = SequenceEmpty ()
        all = Loop (many, go, empty) <body =
            again (int64 i, bool c, seq(float[n]) s) => (bool d, seq(float[n]) t)
            { d = Identity (c)  more = Add (one, x)  t = SequenceInsert (s, more) }>
        y = SequenceLength (all)
    }""")


def lying_entries(_: Path) -> bytes:
    """A million entries of metadata."""
    model = onnx.load_model_from_string(cycle(_))
    for number in range(200_000):
        model.metadata_props.add(key=str(number), value="x")
    return model.SerializeToString()


def saved_context(_: Path) -> bytes:
    """A compiled graph of somebody's accelerator that lies in a file of ours."""
    return _text(
        """net (float[1] x) => (float[1] y) { y = com.microsoft.EPContext
        <embed_mode = 0, ep_cache_context = "/etc/passwd", main_context = 1> (x) }""",
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>',
    )


def plain_external(location: str) -> Maker:
    """A single file whose weight lies in a file of ours."""

    def make(path: Path) -> bytes:
        with zipfile.ZipFile(io.BytesIO(external(location)(path))) as archive:
            return archive.read("model.onnx")

    return make


def giant_text(_: Path) -> bytes:
    model = onnx.load_model_from_string(cycle(_))
    model.doc_string = "x" * (64 << 20)
    return model.SerializeToString()


def garbage(_: Path) -> bytes:
    return b"\x08\x08\x3a" + np.random.default_rng(0).bytes(100_000)


def torch_loop(path: Path) -> bytes:
    return _scripted(
        "    def forward(self, x: Tensor) -> Tensor:\n"
        "        while True:\n            x = x + 1\n        return x\n",
        path,
    )


def torch_memory(path: Path) -> bytes:
    return _scripted(
        "    def forward(self, x: Tensor) -> Tensor:\n"
        "        return x + torch.zeros(100000, 100000).sum()\n",
        path,
    )


def torch_reader(path: Path) -> bytes:
    secret = str(path / "outside" / "secret")
    return _scripted(
        "    def forward(self, x: Tensor) -> Tensor:\n"
        f"        return x + torch.from_file({secret!r}, False, 4)\n",
        path,
    )


def torch_environment(path: Path) -> bytes:
    return _scripted(
        "    def forward(self, x: Tensor) -> Tensor:\n"
        "        return x + torch.from_file('/proc/1/environ', False, 4, dtype=torch.uint8)\n",
        path,
    )


def torch_writer(path: Path) -> bytes:
    """It saves while it is loaded."""
    mine = str(path / "outside" / "mine")
    return _scripted(
        "    @torch.jit.export\n"
        "    def __getstate__(self) -> Tuple[str, bool]:\n"
        "        return ('', self.training)\n"
        "    @torch.jit.export\n"
        "    def __setstate__(self, state: Tuple[str, bool]) -> None:\n"
        "        self.training = state[1]\n"
        f"        torch.save(torch.ones(1), {mine!r})\n"
        "    def forward(self, x: Tensor) -> Tensor:\n        return x + 1\n",
        path,
    )


def torch_out_of_bounds(path: Path) -> bytes:
    return _scripted(
        "    def forward(self, x: Tensor) -> Tensor:\n"
        "        return torch.as_strided(x, [1 << 40], [1 << 20], 1 << 40)\n",
        path,
    )


def torch_zip_bomb(path: Path) -> bytes:
    """The weights are deflated a thousand times."""
    inner = torch_loop(path)
    with zipfile.ZipFile(io.BytesIO(inner)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(files)).partition("/")[0]
    return zipped(files | {f"{root}/data/0": bytes(300 << 20)})


def torch_pickle(path: Path) -> bytes:
    """Its weights are a pickle that starts a program."""
    inner = torch_memory(path)
    with zipfile.ZipFile(io.BytesIO(inner)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(files)).partition("/")[0]
    files[f"{root}/data.pkl"] = b"\x80\x02cposix\nsystem\nX\x05\x00\x00\x00touch\x85R."
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:  # stored: what is packed is refused unread
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def _scripted(body: str, folder: Path) -> bytes:
    import importlib.util  # noqa: PLC0415 - torch reads the source of what it scripts
    import warnings  # noqa: PLC0415 - as above

    import torch  # noqa: PLC0415 - takes a second

    source = folder / "hostile_module.py"
    source.write_text(
        "from typing import Tuple\nimport torch\nfrom torch import Tensor\n"
        f"class Hostile(torch.nn.Module):\n{body}"
    )
    found = importlib.util.spec_from_file_location("hostile_module", source)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module.Hostile()), content)
    return content.getvalue()


BAD = {"invalid_model"}
MISSING, UNSAFE = {"missing_external_data"}, {"unsafe_archive"}

#: name: (file, codes that it may fail with; "succeeded" where it does no harm).
ONNX: dict[str, tuple[Maker, set[str]]] = {
    "millions of empty nodes": (empty_nodes, {"out_of_memory", *BAD}),
    "endless loop": (endless_loop, {"time_limit"}),
    "constant of forty gigabytes": (huge_constant, {"out_of_memory"}),
    "expansion to 256 gigabytes": (huge_expansion, {"out_of_memory"}),
    "weight of 2^40 numbers": (lying_dimensions([1 << 40]), BAD),
    "weight of overflowing size": (lying_dimensions([1 << 32, 1 << 32]), BAD),
    "weight of negative size": (lying_dimensions([-4, -1]), BAD),
    "deep nesting": (deep_nesting, {"succeeded"}),
    "many branches": (many_branches, {"time_limit"}),
    "recursive function": (recursive_function, BAD),
    "cycle": (cycle, BAD),
    "colliding names": (colliding_names, BAD),
    "size from NaN": (no_number_for_a_size, BAD),
    "foreign operator": (foreign_operator, {"unsupported_operator"}),
    "contrib operator": (contrib_operator, BAD),
    "functions that double": (laughs, {"time_limit", "out_of_memory", *BAD}),
    "functions in a circle": (functions_in_a_circle, BAD),
    "growing sequence": (growing_sequence, {"out_of_memory", "time_limit", *BAD}),
    "metadata": (lying_entries, BAD),
    "texts": (texts, {"succeeded"}),
    "a trap of the processor": (trap, {"crashed"}),
    "compiled elsewhere": (saved_context, {"unsupported_operator", *BAD}),
    "weights in /etc/passwd": (plain_external("/etc/passwd"), MISSING),
    "weights in the environment": (plain_external("/proc/self/environ"), MISSING),
    "weights in the other job": (plain_external("../../outside/secret"), MISSING),
    "giant text": (giant_text, BAD),
    "garbage": (garbage, {"unknown_format"}),
}
ARCHIVES: dict[str, tuple[Maker, set[str]]] = {
    "data above the folder": (external("../../outside/secret"), MISSING),
    "data by absolute path": (external("/etc/passwd"), MISSING),
    "data from /dev/zero": (external("/dev/zero"), MISSING),
    "data from the process's memory": (external("/proc/self/mem", offset="4194304"), MISSING),
    "data at a negative offset": (external("w.bin", offset="-8"), MISSING),
    "data of huge length": (external("w.bin", length=str(1 << 50)), MISSING),
    "data from a device": (special_entry(stat.S_IFCHR, b""), UNSAFE),
    "data in a folder": (special_entry(stat.S_IFDIR, b""), MISSING),
    "data from the terminal": (external("/dev/stdin"), MISSING),
    "data by a link": (special_entry(stat.S_IFLNK, b"/etc/passwd"), UNSAFE),
    "data from a FIFO": (special_entry(stat.S_IFIFO, b""), UNSAFE),
    "zip bomb": (zip_bomb, UNSAFE),
    "zip slip": (zip_slip, UNSAFE),
}
TORCHSCRIPT: dict[str, tuple[Maker, set[str]]] = {
    "a loop": (torch_loop, {"time_limit"}),
    "an allocation": (torch_memory, {"out_of_memory"}),
    "a read of a secret": (torch_reader, {"forward_failed"}),
    "a read of the environment": (torch_environment, {"forward_failed"}),
    "a write at load": (torch_writer, {"succeeded", "invalid_model"}),
    "a view out of bounds": (torch_out_of_bounds, {"forward_failed"}),
    "a zip bomb": (torch_zip_bomb, UNSAFE),
    "a pickle that starts a program": (torch_pickle, BAD),
}
