"""Programs that travel in a bundle: Python 3.9, numpy and onnxruntime are all they may use."""
