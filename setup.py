"""Metadata of scratchvae; pyproject.toml holds the build system and the tools' settings."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
REPOSITORY = "https://github.com/scratchvae/scratchvae"  # where the links of the README lead on a package index
READ = [
    "markdown-it-py>=3",
    "mdit-py-plugins>=0.4",
    "latex2mathml>=3.78",
    "pygments>=2.15",
    "jinja2>=3.1",
    "markupsafe>=2",
]
MPI = [
    "mpi4py>=4",
    "mpich>=4.3; platform_system != 'Windows'",
]  # MPICH: Open MPI refuses root and more ranks than cores
# xdist: the suite in half the time
TEST = ["pandas>=2", "polars>=1", "pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6", "mpmath>=1.3", *READ, *MPI]
BESIDE = ["examples/**/*.py", "examples/results/*.csv", "benchmarks/**/*.py", "benchmarks/results/*.json", "tests/*.py"]


def description():
    """Return the README with absolute links, so that a package index shows its pictures and leads to its pages."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[([^]]*)\]\((?!https://)", rf"![\1]({REPOSITORY}/raw/main/", text)
    return re.sub(r"\]\((?!https://|#)", f"]({REPOSITORY}/blob/main/", text)


class BuildWithWhatIsRead(build_py):
    """Builds the package, and puts into it what the reading shows besides: examples, tests and committed results."""

    def run(self):
        super().run()
        if not self.editable_mode:
            beside = Path(self.build_lib, "scratchvae", "reading", "beside")
            shutil.rmtree(beside, ignore_errors=True)
            for pattern in BESIDE:
                for path in HERE.glob(pattern):
                    target = beside / path.relative_to(HERE)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)


setup(
    name="scratchvae",
    version="0.2.0",
    description="Auto-Encoding Variational Bayes from scratch: NumPy, hand-derived gradients, every one checked",
    long_description=description(),
    long_description_content_type="text/markdown",
    license="MIT",
    url=REPOSITORY,
    python_requires=">=3.11",
    packages=find_packages(include=["scratchvae", "scratchvae.*"]),
    package_data={
        "scratchvae.reading": ["pages/*.md", "*.jinja", "*.css"],
        "scratchvae.explorer": ["*.html", "*.css", "*.js"],
    },
    cmdclass={"build_py": BuildWithWhatIsRead},
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
        "scikit-learn>=1.6",  # the estimators of scratchvae.sklearn, and the embedded digits
        "autograd>=1.7",  # the oracle behind gradcheck; never on the training path
        "threadpoolctl>=3.2",  # train and bench set the threads of BLAS; scikit-learn needs it anyway
    ],
    extras_require={
        "read": READ,  # scratchvae read
        "mpi": MPI,  # mpiexec -n 8 scratchvae train
        "test": TEST,
        "browser": ["playwright>=1.40"],  # and a chromium, for the tests in a browser
        "dev": [*TEST, "ruff==0.17.*", "build>=1", "twine>=6"],
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
