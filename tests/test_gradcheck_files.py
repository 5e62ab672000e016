"""scratchvae gradcheck FILE: what is found in a file is checked, and no file harms another."""

import json
import sys

import numpy as np
import pytest

from scratchvae.cli import main
from scratchvae.gradcheck import homework

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
    path.write_text(text)
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
    path.write_text(WRONG)
    assert main(["gradcheck", str(path)]) == 1
    out = capsys.readouterr().out
    assert "the sign is wrong: it is -1 times the right one" in out
    assert "it is 0.333333 times the right one" in out
    assert main(["gradcheck", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["passed"]
    assert [check["passed"] for check in found["files"][0]["checks"]] == [False, True, True, False]
    path.write_text(RIGHT)
    assert main(["gradcheck", str(path)]) == 0


def test_examples_say_with_which_arguments_a_layer_or_a_density_is_checked(tmp_path):
    result = marked(tmp_path, MARKED)
    assert {check["name"]: check["passed"] for check in result["checks"]} == {
        "log_power": True,
        "Needs": False,
        "needs_two": True,
    }
    note = result["checks"][1]["rows"][0]["notes"][0]
    assert "Needs cannot be made with the sizes [5]" in note and "example(x)" in note


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
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "zz_right.py").write_text(RIGHT)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert main(["gradcheck", str(tmp_path), "--seconds", "3", "--memory", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    told = {line.split(".py")[0].rsplit("/", 1)[-1]: line for line in lines if ".py" in line}
    for name, (_, words) in BAD.items():
        assert words in told[name], told[name]
    assert told["zz_right"].split()[1:] == ["4", "0"]
    assert lines[-1] == f"1 of {len(BAD) + 1} files pass"


def test_a_path_that_is_no_file_is_refused(tmp_path, capsys):
    for path in (tmp_path / "absent.py", tmp_path):
        assert main(["gradcheck", str(path)]) == 2
        assert f"{path} is no file, and no folder with files *.py in it" in capsys.readouterr().err
