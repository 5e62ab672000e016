"""The house rules a reader relies on: which file imports which, what is never in the library, the reading guide."""

import ast
import functools
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scratchvae
from scratchvae import SGD, Adagrad, Adam, plots
from scratchvae.bench import Workload
from scratchvae.gradcheck.homework import mark
from scratchvae.inference import hmc
from scratchvae.inference.marginal import appendix_d
from scratchvae.inference.mean_field import CorrelatedGaussian, MixtureOfGaussians, UnivariateGaussian
from scratchvae.models.autoencoder import PCA, LinearAutoencoder
from scratchvae.models.factor_analysis import PPCA, FactorAnalysis
from scratchvae.training.em import fit_mcem

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "scratchvae").rglob("*.py"))
PAGES = [
    ROOT / "README.md",
    ROOT / "examples" / "README.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "CONTRIBUTING.md",
]

# Each may import those that stand before it, and its own floor; oracle imports nothing; plots, backend, guard,
# output, signals and shares are leaves, and data knows only how files are read and how much memory there is.
FLOORS = ["oracle plots backend guard output diagnostics signals shares", "ranks", "files", "data"]
FLOORS += ["arguments noise models.moments nets.params nets.layers inference.distributions"]
FLOORS += [
    "nets.mlp nets.conv nets.heads inference.hmc inference.full_vb inference.mean_field inference.reparameterise"
]
FLOORS += ["inference.score_function inference.posterior_sgvb"]
FLOORS += ["inference.posteriors inference.likelihoods inference.objectives"]
FLOORS += ["inference.estimate", "inference.annealing"]
FLOORS += ["inference.marginal inference.information inference.mcem inference.imputation", "inference.classes"]
FLOORS += [
    "trials",
    "doors",
    "models",
    "training gradcheck",
    "sklearn exercises",
    "bench reading explorer",
    "cli",
    "__main__",
]


def floor(module):
    """The number of the floor that a module such as "nets.layers" stands on."""
    for number, names in enumerate(FLOORS):
        if any(module == name or module.startswith(name + ".") for name in names.split()):
            return number
    raise AssertionError(f"{module} is on no floor: say where it belongs")


def name_of(path):
    return ".".join(path.relative_to(ROOT / "scratchvae").with_suffix("").parts)


def imports(path):
    """Every module that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                inner = ROOT / Path(*node.module.split(".")) / f"{alias.name}.py"
                yield f"{node.module}.{alias.name}" if inner.exists() else node.module


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path) != "__init__"], ids=name_of)
def test_dependencies_point_one_way(path):
    ours = [name.removeprefix("scratchvae.") for name in imports(path) if name.startswith("scratchvae.")]
    if name_of(path) in ("oracle", "plots", "backend", "guard", "output"):
        assert ours == []
    for name in ours:
        assert floor(name) <= floor(name_of(path)), (path, name)
        assert name != "oracle" or name_of(path).startswith("gradcheck."), path


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_forbidden_is_in_the_library(path):
    text, tree = path.read_text(encoding="utf-8"), ast.parse(path.read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), (
        "input is refused with an error that -O keeps"
    )
    assert not re.search(r"np\.random\.(seed|rand|randn|normal|uniform|choice|shuffle|permutation)\b", text), (
        "global RNG"
    )
    assert "np.clip(" not in text, "a clip: of a probability? use logits"
    heavy = {"tensorflow", "pickle"}
    heavy |= {"torch", "jax"} if name_of(path) != "gradcheck.witnesses" else set()
    heavy |= {"autograd"} if name_of(path) not in ("oracle", "gradcheck.witnesses") else set()
    heavy |= {"matplotlib"} if name_of(path) != "plots" else set()
    heavy |= {"cupy"} if name_of(path) != "backend" else set()
    assert not heavy & {name.split(".")[0] for name in imports(path)}


WORDLESS = re.compile(r"pytest\.raises\((ValueError|DataError|FileError|CheckpointError)\)")  # any mistake is one


def never_checked(source):
    """The lines of a test that look like a check and are none, hide one behind None, or take any error for the one."""
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    statements = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):  # numpy.testing's return None, so that `assert_allclose(…) and more` ends there
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.startswith("assert_") and name not in own and node not in statements:
                yield node.lineno
        never = isinstance(node, ast.Expr) and isinstance(node.value, ast.BoolOp | ast.Compare)
        always = isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple)
        any_refusal = (
            isinstance(node, ast.withitem) and node.optional_vars is None and WORDLESS.match(ast.unparse(node))
        )
        if never or always or any_refusal:
            yield getattr(node, "lineno", None) or node.context_expr.lineno


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_every_check_of_a_test_is_made(path):
    assert list(never_checked(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "assert_allclose(a, b) and c < 1",
        "assert np.testing.assert_array_equal(a, b)",
        "good = assert_allclose(a, b)",
        "a == b",
        "a < b or c",
        "assert (a, b)",
        "with pytest.raises(ValueError): f()",
    ],
)
def test_a_check_that_is_not_made_is_found(line):
    sound = (
        "def assert_both(a, b):\n    return a and b\nassert assert_both(a, b)\nassert_allclose(a, b)\nassert a == b\n"
    )
    sound = f"with pytest.raises(ValueError, match='x'): f()\nwith pytest.raises(ValueError) as error: f()\n{sound}"
    assert list(never_checked(sound)) == []
    assert set(never_checked(sound + line)) == {8}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_public_name_says_what_it_promises(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}: {node.name}"


@pytest.mark.parametrize(
    "model", [PPCA, FactorAnalysis, PCA, LinearAutoencoder, UnivariateGaussian, MixtureOfGaussians]
)
def test_a_model_of_tables_takes_no_y_and_says_so(model):
    arguments = inspect.signature(model.fit).parameters
    assert [name for name, a in arguments.items() if a.kind != a.KEYWORD_ONLY] == ["self", "x"]
    said = "takes x, without y, and seed by its name." if "seed" in arguments else "takes x alone, without y."
    doc = inspect.getdoc(model)
    if model is UnivariateGaussian:
        assert f"It is no estimator of scikit-learn: `fit` {said}" in doc
    else:
        name = model.__name__
        assert f"As an estimator of scikit-learn it is `scratchvae.sklearn.{name}`.\nHere `fit` {said}" in doc
        assert hasattr(importlib.import_module("scratchvae.sklearn"), name)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, scratchvae; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "numpy" in loaded
    assert not loaded & {"matplotlib", "autograd", "scipy", "sklearn", "pooch", "PIL", "cupy", "torch"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_picture_of_a_page_exists_with_the_heading_that_it_names(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not heading or heading in slugs, link


def test_the_readme_has_at_most_150_lines_and_no_table_of_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert not re.search(r"^\|.*\d\.\d.*\|$", text, re.MULTILINE)


@pytest.mark.filterwarnings("ignore:k_hat is above")  # the models of so few samples are none to trust
@pytest.mark.parametrize("page", PAGES[:2], ids=["README", "examples"])
def test_the_python_examples_of_a_page_run(page, monkeypatch, tmp_path, digits):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        small = block.replace('"mnist"', '"digits"').replace("784", "64").replace("1_000_000", "2_000")
        small = small.replace("range(3)", "range(1)").replace("steps=1000", "steps=100")
        exec(compile(small, page.name, "exec"), names)
    assert names["mu"].shape == (10, 20)


def test_the_version_is_said_alike_everywhere():
    places = {
        "setup.py": r'version="([^"]+)"',
        "scratchvae/__init__.py": r'__version__ = "([^"]+)"',
        "CITATION.cff": r"version: (\d\S+)\ndate-released",
        "CHANGELOG.md": r"^## (\d\S+) \((?!not released)",
    }
    found = {
        re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)[1]
        for name, pattern in places.items()
    }
    assert found == {scratchvae.__version__}


def texts_without_an_encoding(text):
    """Yield the lines on which a file is read or written as text and no encoding is named."""
    for call in ast.walk(ast.parse(text)):
        if not isinstance(call, ast.Call) or any(word.arg in ("encoding", None) for word in call.keywords):
            continue
        name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
        modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
        as_text = all(isinstance(mode, ast.Constant) and "b" not in str(mode.value) for mode in modes)
        of_path = (name == "read_text" and not call.args) or (name == "write_text" and len(call.args) == 1)
        if of_path or (isinstance(call.func, ast.Name) and name == "open" and as_text):
            yield call.lineno


def test_every_text_file_names_its_encoding_which_is_another_one_on_windows():
    files = [path for name in ("scratchvae", "tests", "examples", "benchmarks") for path in (ROOT / name).rglob("*.py")]
    found = {
        f"{path.relative_to(ROOT)}, line {line}"
        for path in [*files, ROOT / "setup.py"]
        for line in texts_without_an_encoding(path.read_text(encoding="utf-8"))
    }
    assert not found
    assert list(texts_without_an_encoding("p.read_text()\nopen(p)\np.write_text(t)\nopen(p, 'rb')\n")) == [1, 2, 3]


# Defaults


def modules():
    names = [name_of(path).removesuffix(".__init__") for path in FILES if name_of(path) not in ("__init__", "__main__")]
    return [importlib.import_module(f"scratchvae.{name}") for name in names]


@functools.cache
def functions():
    """(name, function, docstring) for every function, method and class of the library."""
    return list(_functions())


def _functions():
    for module in modules():
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(value):
                yield f"{module.__name__}.{name}", value.__init__, value.__doc__ or ""
                for key, method in vars(value).items():
                    if inspect.isfunction(method):
                        yield f"{module.__name__}.{name}.{key}", method, method.__doc__ or ""
            elif inspect.isfunction(value):
                yield f"{module.__name__}.{name}", value, value.__doc__ or ""


@functools.cache
def defaults(function):
    """The arguments of a function that have a default, by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # of some builtins nothing is known
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def test_a_default_that_a_docstring_states_is_that_of_the_signature():
    """As in "tol ends the ascent …; 1e-6 unless given", in the entry of an argument or after "x is …" in a sentence."""
    compared = 0
    for name, function, text in functions():
        text = inspect.cleandoc(text)
        entries = re.findall(r"^(\w+(?:, \w+)*)   *(.*(?:\n +.*)*)", text, re.MULTILINE)
        entries += [
            (found[1], found[0])
            for found in re.finditer(
                r"(\w+)(?:, [^,.]+,)? (?:is|are|selects) [^.;]*?unless given", " ".join(text.split())
            )
        ]
        entries += [
            (found[1], found[0])
            for found in re.finditer(r"(\w+), [^.;]*?selects [^;]*; \S+ unless given", " ".join(text.split()))
        ]
        given = defaults(function)
        for arguments, said in entries:
            for value in re.findall(r"(\S+?),? (?:each )?unless given", " ".join(said.split())):
                for argument in arguments.split(", "):
                    known = given.get(argument)
                    if (
                        argument not in given
                        or known is None
                        or not re.fullmatch(r"-?[\d.,e-]+|True|False|\"\w+\"|None", value)
                    ):
                        continue
                    stated = value.replace(",", "").strip('"')
                    found = (
                        repr(known) if isinstance(known, bool) else known if isinstance(known, str) else float(known)
                    )
                    assert (stated if isinstance(found, str) else float(stated)) == found, (name, argument)
                    compared += 1
    assert compared >= 55


EVERYWHERE = {  # arguments that have one default wherever they have any
    "seed": {0},
    "resume": {False},
    "take_over": {False},
    "changed_data": {False},
    "quiet": {False},
    "as_json": {False},
    "batch_size": {100},
    "acceptance": {0.9},
    "burn_in": {10, 100},
    "jitter": {0.5},
    "steps": {10, 2, 4, 100, 2000, 10_000},  # of HMC, annealing, appendix D, a random walk, and two ascents
    "columns": {10, 20},  # of pictures, and of a manifold
    "rows": {20},
    "learn_hyperprior": {False},
    "log_sigma": {-4.0},
    "init_biases": {False},
    "prior": {True},
    "reads_data": {False},
    "stride": {1},
    "padding": {0},
    "rao_blackwell": {True},
    "n_theta": {10},
    "repeats": {10},
    "alpha": {1.0},
    "max_iter": {200, 10_000, 100_000},
    "beta1": {0.9},
    "beta2": {0.999},
    "warmup": {0},
    "closed": {True},
    "fields": {False},
    "shared": {False},
    "stepsize": {0.1},
    "thin": {3},
    "chains": {5, 10},
    "limit": {10.0},
    "points": {3, 401},  # of a check, and of a grid
    "lr": {1e-6, 0.01, 0.001, 0.02},  # of SGD, Adagrad, Adam, and of the q of each image
    "eps": {1e-10, 1e-8},  # of Adagrad and Adam
    "dlog_q": {0.0},
    "dneg_kl": {0.0},
}


def test_an_argument_has_the_same_default_wherever_it_has_one():
    found = {}
    for _, function, _ in functions():
        for argument, value in defaults(function).items():
            if isinstance(value, int | float):
                found.setdefault(argument, set()).add(value)
    assert {argument: found[argument] for argument in EVERYWHERE} == EVERYWHERE


def test_a_gradient_is_left_by_densities_and_objectives_and_by_a_bound_only_where_it_is_asked_for():
    """A bound is asked for by a user, and a density by what takes its gradient."""
    found = {
        name: given["gradient"] for name, function, _ in functions() if "gradient" in (given := defaults(function))
    }
    plain = {name.removeprefix("scratchvae.") for name, value in found.items() if value is False}
    assert plain == {
        "models.vae.VAE.bound",
        "models.full_vb.FullVB.bound",
        "inference.full_vb.Posterior.neg_kl",
        "inference.objectives.sgvb.terms",
    }
    assert set(found.values()) == {True, False} and len(found) > 25


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (UnivariateGaussian, {"mean": 0.0, "kappa": 1.0, "a": 1.0, "b": 1.0, "tol": 1e-9, "max_iter": 10_000}),
        (CorrelatedGaussian, {"tol": 1e-9, "max_iter": 10_000}),
        (MixtureOfGaussians, {"mean_precision": 1.0, "tol": 1e-6, "max_iter": 10_000}),
        (SGD, {"lr": 1e-6}),
        (Adagrad, {"lr": 0.01, "eps": 1e-10, "warmup": 0}),
        (Adam, {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}),
        (hmc.sample, {"burn_in": 100, "steps": 10, "acceptance": 0.9, "stepsize": 0.1, "shared": False, "jitter": 0.5}),
        (appendix_d, {"n_samples": 200, "burn_in": 100, "steps": 4, "thin": 3, "chains": 5, "seed": 0}),
        (fit_mcem, {"samples": 1_000_000, "steps": 10, "updates": 5, "acceptance": 0.9, "batch_size": 100}),
        (mark, {"seed": 0, "seconds": 60.0, "memory": 4 << 30}),
        (Workload, {"backend": "numpy", "dtype": "float32", "n_visible": 784, "n_hidden": 500, "n_latent": 20}),
        (Workload, {"batch_size": 100, "model": "vae"}),
        (plots.random_walk, {"steps": 100, "sd": 0.1, "columns": 10, "seed": 0}),
        (plots.figure, {"width": 6.0, "height": 6.0}),
        (plots.theta_uncertainty, {"draws": 64, "seed": 0}),
    ],
)
def test_defaults_are_what_the_pages_and_the_papers_say(function, expected):
    found = defaults(function)
    assert {name: found[name] for name in expected} == expected
    assert all(type(found[name]) is type(value) for name, value in expected.items())


@pytest.mark.parametrize("make", [UnivariateGaussian, CorrelatedGaussian, lambda: MixtureOfGaussians(4), SGD, Adagrad])
def test_an_object_that_is_made_without_arguments_has_its_defaults(make):
    kept = vars(make())
    ascent = {"tol": 1e-9, "max_iter": 10_000}
    expected = {
        UnivariateGaussian: {"mean": 0.0, "kappa": 1.0, "a": 1.0, "b": 1.0, **ascent},
        CorrelatedGaussian: ascent,
        SGD: {"lr": 1e-6},
        Adagrad: {"lr": 0.01, "eps": 1e-10, "warmup": 0},
    }.get(make, {"concentration": 0.25, "mean_precision": 1.0, "degrees": None, "tol": 1e-6, "max_iter": 10_000})
    assert {name: kept[name] for name in expected} == expected
