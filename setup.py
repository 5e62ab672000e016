"""Metadata of scratchvae; pyproject.toml holds the build system and the tools' settings."""

from pathlib import Path

from setuptools import find_packages, setup

TEST = ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6", "mpmath>=1.3"]  # xdist: the suite in half the time

setup(
    name="scratchvae",
    version="0.1.0",
    description="Auto-Encoding Variational Bayes from scratch: NumPy, hand-derived gradients, every one checked",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["scratchvae", "scratchvae.*"]),
    package_dir={
        "": "."
    },  # an editable install then puts this folder on sys.path, so that Python started in the folder
    # above it finds the package, and not the clone of the same name
    install_requires=[
        "numpy>=2.0,<3",
        "scipy>=1.11",  # the inverse normal CDF, .mat files
        "matplotlib>=3.8",
        "pillow>=10",  # the user's own folder of images
        "tqdm>=4.65",
        "pooch>=1.8",  # MNIST and Frey Face from public mirrors
        "scikit-learn>=1.4",  # the embedded digits
        "autograd>=1.7",  # the oracle behind gradcheck; never on the training path
        "threadpoolctl>=3.2",  # train and bench set the threads of BLAS; scikit-learn needs it anyway
    ],
    extras_require={
        "test": TEST,
        "dev": [*TEST, "ruff==0.17.*"],
        "mutants": [*TEST, "coverage>=7.4"],  # python tests/mutants.py
        "bench": ["torch==2.13.*", "jax>=0.10", "jaxlib>=0.10"],  # peers of benchmarks/peers.py; autograd is there
        "cuda12": ["cupy-cuda12x[ctk]>=14"],  # ctk: cuBLAS, NVRTC and the like, so that the driver is all it takes
        "cuda13": ["cupy-cuda13x[ctk]>=14"],
    },
    entry_points={"console_scripts": ["scratchvae=scratchvae.cli:program"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
