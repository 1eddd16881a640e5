"""What is recognised and refused by name: a sentence each, and the remedy."""

from worker.compression import UnsupportedFormat

_FROM_TORCH = (
    "in the code that builds the model: torch.jit.script(model.eval()).save('model.pt') "
    "(or torch.jit.trace with an example), or torch.onnx.export(model.eval(), (example,), "
    "'model.onnx'); send that file"
)
_FROM_KERAS = (
    "export it to ONNX: `model.export('model.onnx', format='onnx')` in Keras 3, or "
    "`python -m tf2onnx.convert --keras model.h5 --output model.onnx`; send that file"
)
_FROM_TENSORFLOW = (
    "convert it with `python -m tf2onnx.convert --saved-model FOLDER --output model.onnx` "
    "(--graphdef for a frozen graph, --tflite for a .tflite file); send that file"
)
_WEIGHTS_ONLY = (
    "load the weights into the model's code, then export that: "
    "torch.jit.script(model.eval()).save('model.pt') or torch.onnx.export"
)
_UNPACK = "unpack it and send the .onnx or TorchScript .pt file that is inside"
_SOURCE = "export ONNX from the framework that the model was trained in, and send that"

_REFUSALS = {
    "pickled_module": (
        "this is a pickled PyTorch module ({detail}): a program, which is never run here",
        _FROM_TORCH,
    ),
    "state_dict": (
        "this is a state dict or checkpoint: weights without the network that they belong to",
        _FROM_TORCH.replace(
            "that builds the model", "that builds the model and loads the weights"
        ),
    ),
    "unsupported_pickle": ("this is a Python pickle ({detail}), not a model file", _SOURCE),
    "torch_export": (
        "this is a torch.export archive (.pt2), which cannot be opened without running code",
        "in the code that made it: torch.onnx.export(exported_program, f='model.onnx'), or "
        "torch.jit.trace(model.eval(), example).save('model.pt'); send that file",
    ),
    "torch_package": ("this is a torch.package archive, which holds Python code", _FROM_TORCH),
    "torch_mobile": ("this is a model for PyTorch's mobile interpreter", _FROM_TORCH),
    "keras_model": ("this is a Keras model (.keras)", _FROM_KERAS),
    "hdf5_file": ("this is an HDF5 file, such as Keras's .h5", _FROM_KERAS),
    "saved_model": ("this is a TensorFlow SavedModel", _FROM_TENSORFLOW),
    "frozen_graph": ("this is a TensorFlow graph (.pb)", _FROM_TENSORFLOW),
    "tflite": ("this is a TensorFlow Lite model", _FROM_TENSORFLOW),
    "safetensors": (
        "this is a safetensors file: weights without the network that they belong to",
        _WEIGHTS_ONLY,
    ),
    "gguf": (
        "this is a GGUF file: a language model, already quantized for llama.cpp",
        "send the original model as ONNX, or use llama.cpp's own tools",
    ),
    "mar_archive": ("this is a TorchServe archive (.mar)", _UNPACK),
    "tar_archive": ("this is a tar archive", _UNPACK),
    "compressed_file": ("this is a {detail} file", _UNPACK),
    "html_page": (
        "this is an HTML page, as a download link answers when it needs a login",
        "open the link in a browser, download the model itself, and send that",
    ),
    "lfs_pointer": (
        "this is a Git LFS pointer: a note that stands in for the real file",
        "run `git lfs pull` in the repository and send the real file",
    ),
    "openvino_model": ("this is an OpenVINO model description", _SOURCE),
    "coreml_model": ("this is a Core ML model", _SOURCE),
    "paddle_model": (
        "this is a PaddlePaddle model",
        "convert it with `paddle2onnx --model_dir DIR --model_filename inference.pdmodel "
        "--params_filename inference.pdiparams --save_file model.onnx`; send that file",
    ),
    "ncnn_model": ("this is an ncnn model description", _SOURCE),
    "tensorrt_engine": ("this is a TensorRT engine, compiled for one GPU", _SOURCE),
    "ort_format": (
        "this is ONNX Runtime's own .ort format, already optimised for one machine",
        "send the .onnx file that it was made from",
    ),
    "executorch_program": ("this is an ExecuTorch program (.pte)", _FROM_TORCH),
    "numpy_file": (
        "this is a NumPy file: data, not a model",
        "send it as calibration or evaluation data, beside a model",
    ),
    "several_models": (
        "the zip holds several models: {detail}",
        "send one model per job: its .onnx file with its own data files",
    ),
    "unsupported_zip": (
        "the zip holds no model that is known here, but {detail}",
        "zip one .onnx file with its external data files, or send a TorchScript .pt as it is",
    ),
    "empty_file": ("the file is empty", "send the model file itself"),
    "truncated_file": (
        "the file is cut off: {detail}",
        "compare its size with the original's and upload it again",
    ),
    "unsafe_archive": (
        "the zip is not accepted: {detail}",
        "make it again with a standard zip program, holding only the model's files",
    ),
    "damaged_archive": (
        "the zip is damaged: {detail}",
        "compare its checksum with the original's and upload it again",
    ),
    "no_graph": ("this ONNX file holds no graph", "export the model again"),
    "unknown_format": (
        "this is no model format that is known here: {detail}",
        "send ONNX (.onnx, or a .zip of it with its data files) or TorchScript (.pt)",
    ),
}

CODES = frozenset(_REFUSALS)


def refusal(code: str, detail: str = "") -> UnsupportedFormat:
    """The error for one of CODES."""
    message, hint = _REFUSALS[code]
    return UnsupportedFormat(message.format(detail=detail), hint=hint, code=code)
