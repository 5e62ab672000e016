"""scratchvae gradcheck FILE: what is found in a file is checked, and no file harms another."""

import contextlib
import importlib.util
import io
import json
import sys
import types

import numpy as np
import pytest

from scratchvae.cli import gradcheck as command
from scratchvae.cli import main
from scratchvae.gradcheck import homework
from scratchvae.gradcheck.homework import mark

RIGHT = """
import numpy as np
np.random.seed(3)  # of whoever marks, nothing is changed

class Cube:
    def forward(self, x):
        self.x = x
        return x**3
    def backward(self, dy):
        return 3 * self.x**2 * dy

class Affine:
    def __init__(self, n_in, n_out):
        self.W = np.ones((n_in, n_out))
        self.dW = np.zeros((n_in, n_out))
    def forward(self, x):
        self.x = x
        return x @ self.W
    def backward(self, dy):
        self.dW[...] = self.x.T @ dy
        return dy @ self.W.T

def log_exponential(x, rate):
    return np.log(rate) - rate * x, 1 / rate - x

def a_helper(x, y):
    return x + y

params = {"w": np.ones(3)}
def loss(): return (params["w"] ** 3).sum()
def grads(): return {"w": 3 * params["w"] ** 2}
"""
WRONG = RIGHT.replace("3 * self.x**2 * dy", "-3 * self.x**2 * dy").replace('3 * params["w"] ** 2', 'params["w"] ** 2')
MARKED = """
import numpy as np
from scratchvae.gradcheck import example

@example(np.array([[0.2, 1.5]]), np.array([[2.0, 3.0]]), skip=1)
def log_power(x, k):
    return (k * np.log(x)).sum(axis=-1), np.log(x)

class Needs:
    def __init__(self, words): self.k = {"two": 2}[words]
    def forward(self, x): return self.k * x
    def backward(self, dy): return self.k * dy

@example(np.ones((2, 3)))
def needs_two():
    return Needs("two")
"""


def marked(tmp_path, text, **settings):
    path = tmp_path / "answer.py"
    path.write_text(text, encoding="utf-8")
    return homework.mark(path, **settings)


def test_layers_densities_and_losses_of_a_file_are_found_and_checked(tmp_path):
    result = marked(tmp_path, RIGHT)
    assert result["reason"] == ""
    assert {check["name"]: check["passed"] for check in result["checks"]} == {
        "Cube": True,
        "Affine": True,
        "log_exponential": True,
        "loss": True,
    }
    names = [row["name"] for check in result["checks"] for row in check["rows"]]
    assert names == ["Cube x", "Affine W", "Affine x", "log_exponential ∂rate", "w"]
    assert homework.passed(result)


def test_what_is_wrong_in_a_file_is_said_and_ends_with_exit_code_1(tmp_path, capsys):
    path = tmp_path / "answer.py"
    path.write_text(WRONG, encoding="utf-8")
    assert main(["gradcheck", str(path)]) == 1
    out = capsys.readouterr().out
    assert "the sign is wrong: it is -1 times the right one" in out
    assert "it is 0.333333 times the right one" in out
    assert main(["gradcheck", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["passed"]
    assert [check["passed"] for check in found["files"][0]["checks"]] == [False, True, True, False]
    path.write_text(RIGHT, encoding="utf-8")
    assert main(["gradcheck", str(path)]) == 0


def test_examples_say_with_which_arguments_a_layer_or_a_density_is_checked(tmp_path):
    result = marked(tmp_path, MARKED)
    assert {check["name"]: check["passed"] for check in result["checks"]} == {
        "log_power": True,
        "needs_two": True,  # which is an object of Needs
    }
    result = marked(tmp_path, MARKED.partition("@example(np.ones((2, 3)))")[0])
    note = result["checks"][1]["rows"][0]["notes"][0]
    assert (
        note.startswith("could not be called: Needs cannot be made with words = 5 (KeyError: 5)")
        and "example(x)" in note
    )


MATRICES = """
import numpy as np

class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b
    def forward(self, x):
        self.x = x
        return x @ self.W + self.b
    def backward(self, dy):
        self.dW, self.db = self.x.T @ dy, dy.sum(axis=0)
        return dy @ self.W.T

class MSE:
    def forward(self, prediction, target):
        self.d = prediction - target
        return (self.d**2).sum()
    def backward(self):
        return 2 * self.d

def mse(prediction, target):
    d = prediction - target
    return (d**2).mean(), 2 * d

def square(x):
    return x * x, 2 * x
"""


def test_layers_that_take_their_arrays_and_losses_with_a_target_are_checked(tmp_path):
    result = marked(tmp_path, MATRICES)
    rows = {check["name"]: [(row["name"], row["passed"]) for row in check["rows"]] for check in result["checks"]}
    assert rows["Affine"] == [("Affine W", True), ("Affine b", True), ("Affine x", True)]
    assert rows["MSE"] == [("MSE x", True)]
    assert rows["mse"] == [("mse ∂prediction", False)]
    (facts,) = [check["facts"] for check in result["checks"] if check["name"] == "MSE"]
    assert facts[0] == "not checked: x1, of which backward returns no gradient"
    assert result["not_checked"] == [
        "MSE: x1, of which backward returns no gradient",
        "square: it is not called log_…, …_loss, …_density, nll, mse or the like: mark it with example(…)",
    ]


def test_what_is_not_finished_fails_unless_something_is_derived_from_it(tmp_path):
    base = """
class Base:
    def forward(self, x):
        return x
    def backward(self, dy):
        raise NotImplementedError
"""
    (check,) = marked(tmp_path, base)["checks"]
    assert not check["passed"] and check["rows"][0]["notes"][0].startswith(
        "not finished: its forward or backward raises"
    )
    result = marked(tmp_path, f"{base}class Same(Base):\n    def backward(self, dy):\n        return dy\n")
    assert [check["name"] for check in result["checks"] if check["passed"]] == ["Same"]
    assert result["not_checked"] == ["Base: its forward or backward raises NotImplementedError: a base class"]


def test_a_layer_that_draws_from_the_global_state_is_the_same_at_each_run(tmp_path):
    text = RIGHT.replace("np.random.seed(3)", "").replace("np.ones((n_in, n_out))", "np.random.randn(n_in, n_out)")
    one, other = (marked(tmp_path, text)["checks"] for _ in range(2))
    assert one == other
    assert marked(tmp_path, text, seed=1)["checks"] != one


def test_a_mistake_in_the_syntax_is_told_with_its_line(tmp_path):
    assert marked(tmp_path, "x = 1\ndef f(:\n")["reason"].endswith("(answer.py, line 2)")


def test_files_that_could_not_be_called_are_counted_apart(tmp_path, capsys):
    (tmp_path / "needs.py").write_text(MARKED.partition("@example(np.ones((2, 3)))")[0], encoding="utf-8")
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    assert main(["gradcheck", str(tmp_path)]) == 1
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith("0 of 2 files pass; 1 could not be called and may be right")
    )


def test_a_layer_that_names_its_shapes_is_given_as_many_columns_as_its_matrix_has_rows(tmp_path):
    result = marked(
        tmp_path,
        """
class Product:
    shapes = {"W": (3, 7)}
    def forward(self, x):
        self.x = x
        return x @ self.W
    def backward(self, dy):
        self.dW[...] = self.x.T @ dy
        return dy @ self.W.T
""",
    )
    assert [(check["name"], check["passed"]) for check in result["checks"]] == [("Product", True)]


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self):
        return True


def test_a_terminal_shows_how_long_a_file_takes_once_that_is_two_seconds(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with command._clock("answer.py", 60.0) as show:
        show(1.5)
        assert terminal.getvalue() == ""
        show(2.6)
        assert terminal.getvalue() == "\ranswer.py: 3 s, and may take 60 s"
    assert terminal.getvalue().endswith("\r\x1b[K")
    since = []
    (tmp_path / "slow.py").write_text(f"import time\ntime.sleep(0.6)\n{RIGHT}", encoding="utf-8")
    assert not mark(tmp_path / "slow.py", waiting=since.append)["reason"]
    assert since and 0.5 <= since[0] < 5 and since == sorted(since)


def test_nothing_but_the_result_is_written_where_stderr_is_no_terminal(tmp_path, monkeypatch):
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        with command._clock("answer.py", 60.0) as show:
            assert show is None
        assert stream is None or stream.getvalue() == ""


BAD = {
    "loop": ("while True: pass", "it takes more than 3 s"),
    "leaves": ("import sys\nsys.exit(3)", "it ends the process, with exit code 3"),
    "leaves_quietly": ("import os\nos._exit(0)", "it ends the process, with exit code 0"),
    "crash": ("import os\nos.kill(os.getpid(), 11)", "it was ended by signal 11"),
    "memory": ("x = bytearray(10**11)", "it takes more than 2 GiB"),
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "syntax": ("def f(:", "SyntaxError"),
    "nothing": ("x = 1", "nothing to check"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="the limits of memory and the signals are those of POSIX")
def test_a_file_that_does_not_finish_is_told_and_harms_no_other(tmp_path, capsys):
    for name, (text, _) in BAD.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    (tmp_path / "zz_right.py").write_text(RIGHT, encoding="utf-8")
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert main(["gradcheck", str(tmp_path), "--seconds", "3", "--memory", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    told = {line.split(".py")[0].rsplit("/", 1)[-1]: line for line in lines if ".py" in line}
    for name, (_, words) in BAD.items():
        assert words in told[name], told[name]
    assert told["zz_right"].split()[1:] == ["4", "0"]
    assert lines[-1] == f"1 of {len(BAD)} files pass; 1 more with nothing to check"


def test_the_text_of_a_file_says_why_it_did_not_finish_or_that_nothing_was_found_and_else_only_its_reports():
    check = {"name": "Affine", "rows": [{"name": "dW", "passed": True, "notes": []}], "facts": []}
    marked = {"file": "answer.py", "reason": "", "checks": [], "not_checked": []}
    nothing = "nothing to check: no class with forward and backward, no density, no loss with params and grads"
    why = "did not finish: it takes more than 3 s"
    assert homework.as_text(marked) == f"answer.py\n{nothing}"
    assert homework.as_text(marked | {"not_checked": ["Base: a base class"]}).splitlines()[1:] == [
        nothing,
        "not checked: Base: a base class",
    ]
    assert homework.as_text(marked | {"reason": why}) == f"answer.py\n{why}"
    lines = homework.as_text(marked | {"checks": [check]}).splitlines()
    assert lines[:3] == ["answer.py", "", "Affine"] and nothing not in lines
    assert homework.as_text(marked | {"checks": [check], "reason": why}).splitlines() == [*lines, why]


@pytest.mark.parametrize(("option", "value"), [("--seconds", "-1"), ("--memory", "nan")])
def test_a_limit_that_is_no_number_above_0_is_refused(option, value, tmp_path, capsys):
    (tmp_path / "a.py").write_text(RIGHT, encoding="utf-8")
    assert main(["gradcheck", str(tmp_path / "a.py"), option, value]) == 2
    assert f"{option} is {float(value)}; expected a number > 0" in capsys.readouterr().err


def test_a_path_that_is_no_file_is_refused(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("x = 1", encoding="utf-8")
    for path in (tmp_path / "absent.py", tmp_path, tmp_path / "a.txt"):
        assert main(["gradcheck", str(path)]) == 2
        assert f"{path} is no file *.py, and no folder with files *.py in it" in capsys.readouterr().err


# Which functions are checked


def found_in(text):
    """What is found in the text of a file, in this process: (name, report, or why it was not checked)."""
    module = types.ModuleType("answer")
    exec(text, vars(module))

    def result(check):
        try:
            return check()
        except homework.NotCheckedError as why:
            return str(why)

    return {name: result(check) for name, check in homework.checks_of(module)}


HELPERS = """
import sys
import numpy as np
calls = []
def train(X, y, steps=10**9):
    while True: pass
def usage(message): sys.exit(1)
def save(a, b): calls.append(a)
def split(x, y): return x, y
def stats(x): return x.mean(), x.std()
"""


def test_a_function_that_is_not_called_like_a_density_is_never_called():
    assert found_in(HELPERS) == {}


LOSSES = """
import numpy as np
def mse_loss(pred, target): return .5 * ((pred - target) ** 2).sum(), pred - target
def nll(mu, x): return .5 * (x - mu) ** 2, mu - x
def nll_of(x, mu): return .5 * (x - mu) ** 2, mu - x
def log_both(x, mu): return -.5 * (x - mu) ** 2, x - mu, mu - x
def log_value(x): return np.log(x)
def softmax_loss(scores, y):
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    n = np.arange(len(y))
    return -np.log(p[n, y]).mean(), p - np.eye(p.shape[1])[y]
def log_needs(words): return {"two": 2}[words], 1
"""


def test_the_partials_of_a_density_are_matched_to_its_arguments():
    found = found_in(LOSSES)
    rows = {name: [(row.name, row.passed) for row in report] for name, report in found.items() if name != "log_value"}
    assert rows == {
        "mse_loss": [("mse_loss ∂pred", True)],
        "nll": [("nll ∂mu", True)],
        "nll_of": [("nll_of ∂mu", True)],
        "log_both": [("log_both ∂x", False), ("log_both ∂mu", False)],  # both signs wrong, and not two swapped
        "softmax_loss": [("softmax_loss ∂scores", False)],
        "log_needs": [("log_needs", False)],
    }
    assert "its partials are taken to be those by mu" in found["nll_of"].facts
    assert found["softmax_loss"][0].notes[0].startswith("a factor: it is 4 times the right one")
    assert "could not be called: it takes no rows of numbers" in found["log_needs"][0].notes[0]
    assert found["log_value"] == "it returns ndarray, and not a value with its partials"


LAYERS = """
import numpy as np
class Base:
    def forward(self, x): raise NotImplementedError
    def backward(self, dy): raise NotImplementedError
class Square(Base):
    def forward(self, x):
        self.x = x
        return x * x
    def backward(self, dy): return 2 * self.x * dy
class Leaves(Square):
    def forward(self, x): raise SystemExit(0)
class Sized(Square):
    def __init__(self, n): self.k = np.full(n, 2.0)
class Inherits(Sized): pass
params = np.ones(2)
def loss(): raise SystemExit(1)
def grads(): return params
class Picks:
    def forward(self, x, y):
        self.shape = x.shape
        self.y = y
        return x[np.arange(len(y)), y]
    def backward(self, dy): raise ArithmeticError("mine")
"""


def test_a_base_class_is_left_out_and_a_layer_that_leaves_the_process_fails():
    found = found_in(LAYERS)
    assert found["Base"] == "its forward or backward raises NotImplementedError: a base class"
    assert found["Square"] and found["Inherits"]
    assert found["loss"][0].notes == ("SystemExit: 1",)
    assert "SystemExit: 0" in found["Leaves"][0].notes[0]
    assert (
        "labels, and its backward raises ArithmeticError: mine in line" in found["Picks"][0].notes[0]
    )  # and not the error of other inputs alone


# The process of a file


def test_what_was_checked_before_a_file_breaks_off_is_kept(tmp_path):
    dies = "import os\nclass Zz:\n    def forward(self, x): os._exit(0)\n    backward = forward\n"
    result = marked(tmp_path, RIGHT.replace("params =", dies + "params ="))
    assert [check["name"] for check in result["checks"]] == ["Cube", "Affine", "log_exponential"]
    assert result["reason"] == "did not finish: it ends the process, with exit code 0, in the check of Zz"
    assert not homework.passed(result) and homework.faults(result) == [result["reason"]]


@pytest.mark.parametrize("written", ["garbage", '{"check": 1}', "[]", '{"check": {"name": "a"}}'])
def test_what_a_file_writes_into_its_result_is_told(written):
    lines, unread = homework._lines(b'{"begins": "A"}\n' + written.encode())
    assert lines == [{}, {"begins": "A"}]
    assert unread == "did not finish: the file has written where the result of its checks is kept"


def test_a_file_does_not_end_the_marking_of_others_by_what_it_writes(tmp_path):
    text = "import os, sys\nopen(sys.argv[2], 'w').write('garbage')\nos._exit(0)"
    assert marked(tmp_path, text)["reason"] == "did not finish: it ends the process, with exit code 0"


def test_a_file_that_prints_too_much_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(homework, "FILE_SIZE", 1 << 20)
    result = marked(tmp_path, "print('x' * (1 << 21))")
    assert result["reason"] == "did not finish: it prints more than 1 MiB"


PACKAGED = """
import numpy as np
import scratchvae.gradcheck
from .helper import power
from helper import power as same
assert power is not same  # two modules of one file, as Python has it
k = float(np.loadtxt("data.txt"))
class Power:
    def forward(self, x):
        self.x = x
        return power(x, k)
    def backward(self, dy): return dy * k * power(self.x, k - 1)
"""


def test_a_file_finds_what_lies_beside_it_whatever_it_is_called(tmp_path, monkeypatch):
    (tmp_path / "scratchvae.py").write_text("raise ImportError('not this one')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "answers"
    folder.mkdir()
    (folder / "helper.py").write_text("def power(x, k): return x ** k", encoding="utf-8")
    (folder / "data.txt").write_text("2", encoding="utf-8")
    path = folder / "scratchvae.py"
    path.write_text(PACKAGED, encoding="utf-8")
    result = homework.mark(path)
    assert homework.passed(result), result["reason"]


def test_a_folder_is_marked_with_those_below_it_and_helpers_do_not_fail(tmp_path, capsys, monkeypatch):
    for name in ("a/answer", "a/helper", "b/deep/answer", ".git/hook", "__pycache__/old"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")

    def mark(path, *settings):
        checks = [] if path.stem == "helper" else [{"name": "A", "passed": True, "rows": [], "facts": []}]
        return {"file": str(path), "reason": "", "checks": checks, "not_checked": ["Base: a base class"]}

    monkeypatch.setattr(homework, "mark", mark)
    assert main(["gradcheck", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == [
        str(tmp_path / f"{name}.py") for name in ("a/answer", "a/helper", "b/deep/answer")
    ]
    assert "nothing to check" in lines[2] and lines[1].endswith("not checked: Base: a base class")
    assert lines[-1] == "2 of 2 files pass; 1 more with nothing to check"
    assert main(["gradcheck", str(tmp_path / "a" / "helper.py")]) == 1  # named by itself
    assert main(["gradcheck", str(tmp_path / "a" / "helper.py"), str(tmp_path / "a" / "answer.py")]) == 1
    capsys.readouterr()
    assert main(["gradcheck", "--json"]) == 2
    assert "--json needs a FILE" in capsys.readouterr().err


ODD = """
import abc
from dataclasses import dataclass
import numpy as np
from scratchvae.gradcheck import example

@dataclass
class Config:
    n: int = 3

config = Config()  # which has no hash

class Base(abc.ABC):
    @abc.abstractmethod
    def forward(self, x): ...
    @abc.abstractmethod
    def backward(self, dy): ...

class Plan:
    def forward(self, x):
        raise NotImplementedError
    def backward(self, dy):
        raise NotImplementedError

class Gated:
    def __init__(self, W, V):
        self.W, self.V = W, V
    def forward(self, x):
        self.x, self.s = x, 1 / (1 + np.exp(-x @ self.V))
        return x @ self.W * self.s
    def backward(self, dy):
        d = dy * (self.x @ self.W) * self.s * (1 - self.s)
        self.dW, self.dV = self.x.T @ (dy * self.s), self.x.T @ d
        return dy * self.s @ self.W.T + d @ self.V.T

class Scale:
    def __init__(self, gamma, beta):
        self.gamma, self.beta = gamma, beta
    def forward(self, x):
        self.x = x
        return self.gamma * x + self.beta
    def backward(self, dy):
        self.dgamma, self.dbeta = (dy * self.x).sum(axis=0), dy.sum(axis=0)
        return self.gamma * dy

class Units:
    def __init__(self, V, U):
        self.M = np.full((V, U), 0.1)
    def forward(self, x):
        self.x = x
        return x @ self.M
    def backward(self, dy):
        self.dM = self.x.T @ dy
        return dy @ self.M.T

class Power:
    def __init__(self, k=2):
        self.k = k
    def forward(self, x):
        self.x = x
        return x**self.k
    def backward(self, dy):
        return 2 * self.x * dy  # right for k = 2 alone

@example(np.ones((2, 3)))
def cube():
    return Power(3)

def energy(q, p):
    return (q * q).sum(), (p * p).sum()

def outer(x):
    def inner():
        return x, x
    return inner
"""


def test_right_files_of_many_kinds_pass_and_what_is_wrong_in_them_fails(tmp_path):
    result = marked(tmp_path, ODD)
    assert result["reason"] == ""
    assert {check["name"]: check["passed"] for check in result["checks"]} == {
        "cube": False,
        "Gated": True,
        "Scale": True,
        "Units": True,
        "Power": True,  # by itself, with k = 2
    }
    assert result["not_checked"] == [
        "Base: an abstract class",
        "Plan: its forward or backward raises NotImplementedError: a base class",
        "energy: it is not called log_…, …_loss, …_density, nll, mse or the like: mark it with example(…)",
    ]


# What is looked for, and how it is called


def module_of(text):
    """A module of this process with the text of a file; what it imports is not its own."""
    module = types.ModuleType("answer")
    exec(text, vars(module))
    return module


SEEDED = RIGHT + MARKED.replace("import numpy as np", "") + "@example(np.ones((2, 5)))\nclass Same(Cube): pass\n"


def test_every_check_of_a_file_has_the_seed_of_the_file(monkeypatch):
    """Of classes and functions with an example and without one, and of a loss with its gradients."""
    seeds = []
    for name in ("check_layer", "check_density", "check_gradients"):
        check = getattr(homework, name)

        def noting(*arguments, seed, name=name, check=check, **settings):
            seeds.append((name, seed))
            return check(*arguments, seed=seed, **settings)

        monkeypatch.setattr(homework, name, noting)
    found = {}
    for name, check in homework.checks_of(module_of(SEEDED), 7):
        seeds.clear()
        with contextlib.suppress(homework.NotCheckedError):
            assert check()
            found[name] = set(seeds)
    kinds = {name: {check for check, _ in calls} for name, calls in found.items()}
    assert {seed for calls in found.values() for _, seed in calls} == {7}
    assert {name for name in found if kinds[name] == {"check_layer"}} == {"Cube", "Affine", "Same", "needs_two"}
    assert {name for name in found if kinds[name] == {"check_density"}} == {"log_exponential", "log_power"}
    assert kinds["loss"] == {"check_gradients"}


def test_a_class_with_an_example_is_checked_with_that_input():
    text = """
import numpy as np
from scratchvae.gradcheck import example
@example(np.ones((2, 3)), entries=2)
class Picky:
    def forward(self, x):
        assert x.shape == (2, 3)
        self.x = x
        return x**2
    def backward(self, dy): return 2 * self.x * dy
"""
    report = found_in(text)["Picky"]
    assert report and [(row.name, row.size, row.checked) for row in report] == [("Picky x", 6, 2)]


def test_loss_params_and_grads_are_one_check_and_no_densities_whatever_they_return(tmp_path):
    path = tmp_path / "triple.py"
    path.write_text(
        """
import numpy as np
params_mlp = [np.ones(2), np.ones(3)]
def loss_mlp(p): return (p[0]**2).sum() + (p[1]**2).sum()
def grads_mlp(p): return 2 * p[0], 2 * p[1]
def losses(p): return p, p
""",
        encoding="utf-8",
    )
    spec = importlib.util.spec_from_file_location("triple", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checks = dict(homework.checks_of(module))
    assert list(checks) == ["losses", "loss_mlp"]
    assert checks["loss_mlp"]() and len(checks["loss_mlp"]()) == 2
    with pytest.raises(homework.NotCheckedError, match="or the like: mark it with example"):
        checks["losses"]()


def test_a_density_with_more_partials_than_arguments_of_floats_is_told_so():
    note = found_in("def log_many(x): return -x**2, -2 * x, x\n")["log_many"][0].notes[0]
    assert note == "it returns 2 partials for 1 arguments of floats; expected one for each"


def test_a_forward_that_fails_in_another_way_the_second_time_is_no_base_class():
    text = """
calls = []
class Unfinished:
    def forward(self, x):
        calls.append(x)
        if len(calls) > 1: raise KeyError("again")
        raise NotImplementedError
    def backward(self, dy): return dy
"""
    assert found_in(text)["Unfinished"][0].notes == (
        "not finished: its forward or backward raises NotImplementedError",
    )


def test_a_constructor_is_given_arrays_by_their_names_and_sizes_for_the_rest():
    def shapes(*needed):
        return [[np.shape(one) or one for one in given] for given in homework._constructor_arguments(needed, 0)]

    assert shapes("n_in", "n_out", "depth") == [[5, 3, 2]]
    assert shapes("W", "b") == [[(5, 3), (3,)], [5, 3]]
    assert shapes("W", "n", "bias", "m", "k") == [[(5, 3), 5, (3,), 3, 2], [5, 3, 2, 2, 2]]
    assert shapes("gamma", "beta") == [[(5,), (5,)], [5, 3]]  # without a matrix they are as wide as the input
    (first, _), (again, _) = (next(homework._constructor_arguments(["W", "b"], seed)) for seed in (1, 1))
    assert (first == again).all()
    assert (first != next(homework._constructor_arguments(["W", "b"], 2))[0]).any()


def test_an_input_of_a_layer_has_four_rows_of_five_numbers_and_labels_or_more_rows_beside_it():
    class Layer:
        pass

    (x,) = homework._inputs(1, Layer(), 0)["rows of numbers"]
    assert x.shape == (4, 5)
    found = homework._inputs(3, Layer(), 0)
    assert [[part.shape for part in parts] for parts in found.values()] == [
        [(4, 5), (4, 5), (4, 5)],
        [(4, 5), (4,), (4, 5)],
        [(4, 5), (4, 5), (4, 5)],
    ]
    labels = found["labels"][1]
    assert labels.dtype.kind == "i" and labels.min() >= 0 and labels.max() < 5
    assert (found["one of each"][1] == (np.arange(5) == labels[:, None])).all()
    assert found["rows of numbers"][1].min() >= 0 and found["rows of numbers"][1].max() < 1


def test_a_density_is_called_with_rows_between_two_and_eight_tenths():
    (x,) = homework._arguments(lambda x: x, 3)
    assert x.shape == (4, 5) and 0.2 <= x.min() < 0.3 and 0.7 < x.max() < 0.8


def test_a_long_error_is_cut_in_the_line_that_tells_it():
    assert homework._line(ValueError("x" * 300)) == "x" * 300
    assert homework._line(ValueError("x" * 301)) == "x" * 300 + " …"
    assert homework._line(KeyError("two\n words")) == "KeyError: 'two\\n words'"
    assert homework._line(TypeError("two\n words")) == "TypeError: two words"


@pytest.mark.parametrize(
    ("code", "log", "said"),
    [
        (None, "", "it takes more than 2.5 s"),
        (1, "MemoryError: much", "it takes more than 1.5 GiB"),
        (-9, "", "it was ended by signal 9"),
        (3, "", "it ends the process, with exit code 3"),
        (0, "KeyError: 1", "it ends the process, with exit code 0"),
        (1, "words", "it ends the process, with exit code 1"),
        (1, "KeyError: 1", "KeyError: 1"),
        (1, '  File "/a/b.py", line 3, in f\n  File "/a/c.py", line 4\nKeyError: 1', "KeyError: 1 (c.py, line 4)"),
        (1, "ValueError: " + 400 * "x", "ValueError: " + 288 * "x"),
    ],
)
def test_why_a_file_did_not_finish_is_said_in_one_sentence(code, log, said):
    assert homework._reason(code, log.encode(), 2.5, 3 << 29) == f"did not finish: {said}"


def test_what_is_no_text_in_a_log_harms_no_reason():
    assert homework._reason(1, b"\xff\xfe\nKeyError: 1", 60, 1 << 30) == "did not finish: KeyError: 1"


def row_of(passed, *notes):
    """A row of a report as a file's process tells it."""
    return {"name": "W", "passed": passed, "notes": list(notes)}


@pytest.mark.parametrize(
    ("rows", "reason", "uncalled"),
    [
        ([row_of(False, f"{homework.UNCALLED}why")], "", True),
        ([row_of(False, f"{homework.UNCALLED}why"), row_of(True)], "", True),
        ([row_of(False, f"{homework.UNCALLED}why"), row_of(False, "the sign is wrong")], "", False),
        ([row_of(False, "the sign is wrong", f"{homework.UNCALLED}why")], "", False),
        ([row_of(False)], "", False),
        ([row_of(True)], "", False),
        ([row_of(False, f"{homework.UNCALLED}why")], "did not finish", False),
    ],
)
def test_a_file_could_not_be_called_where_nothing_else_is_wrong_in_it(rows, reason, uncalled):
    result = {"file": "a.py", "reason": reason, "checks": [{"name": "A", "rows": rows}], "not_checked": []}
    assert homework.is_uncalled(result) == uncalled


def test_a_backward_pass_that_raises_is_told_with_its_line_and_not_laid_to_the_inputs(tmp_path):
    lines = ["import numpy as np", "class Tanh:", "    def forward(self, x):", "        return np.tanh(x)"]
    lines += ["    def backward(self, dy):", "        return dy * (1 - self.y**2)"]
    path = tmp_path / "mine.py"
    path.write_text("\n".join(lines), encoding="utf-8")
    ((check,),) = [mark(path)["checks"]]
    (note,) = check["rows"][0]["notes"]
    assert note.startswith("could not be called: its forward takes rows of numbers, and its backward raises Attribute")
    assert note.endswith("has no attribute 'y' in line 6 of mine.py")
