"""What can be chosen for running a model, by name. For those who only ask: imports nothing."""

DEFAULT_WEIGHTS = "mobile_sam_512"
"""Those for real images that come with the package."""

EXPORT_BACKENDS = ("onnx", "tensorrt")
"""Those that run an ONNX export."""

BACKENDS = ("auto", "torch", "openvino", *EXPORT_BACKENDS)
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""Of the image encoder."""
