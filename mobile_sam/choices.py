"""What can be chosen for running a model, by name. For those who only ask: imports nothing."""

EXPORT_BACKENDS = ("onnx", "tensorrt")
"""Those that run an ONNX export."""

BACKENDS = ("auto", "torch", "openvino", *EXPORT_BACKENDS)
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""Of the image encoder."""
