"""exercises/: every right answer passes, every usual mistake is named, and no file of anybody's is overwritten.

golden_mistakes.json holds what each usual mistake gave when it was last read beside its words. Where a mistake is new
or another one on purpose, read it so, and `python tests/test_exercises.py` writes the file anew.
"""

import copy
import inspect
import json
import re
import types
from pathlib import Path

import numpy as np
import pytest

from scratchvae import exercises
from scratchvae.cli import main
from scratchvae.exercises import EXERCISES, checking, exercise_of
from scratchvae.exercises.checking import ANOTHER, CHECKS, EXACT, check
from scratchvae.gradcheck.homework import mark

NUMBERS = {one.name: number for number, one in enumerate(EXERCISES, start=1)}

# The solutions, each derived once more and without a line of the library's


def tanh_backward(x, dy):
    y = np.tanh(x)
    return dy * (1 - y * y)


def sigmoid_backward(a, dy):
    e = np.exp(-np.abs(a))
    return dy * e / (1 + e) ** 2


def softplus(a):
    e = np.exp(-np.abs(a))
    y = np.maximum(a, 0) + np.log1p(e)
    return y, np.where(a >= 0, 1 / (1 + e), e / (1 + e))


def affine_backward(x, W, b, dy):
    dx = dy @ W.T
    dW = x.T @ dy
    return dx, dW, dy.sum(axis=0)


def heads_backward(h, W_mu, W_log_var, dmu, dlog_var):
    dh = dmu @ W_mu.T + dlog_var @ W_log_var.T
    return dh, h.T @ dmu, h.T @ dlog_var


def bernoulli(x, logits):
    e = np.exp(-np.abs(logits))
    s = np.maximum(logits, 0) + np.log1p(e)
    y = np.where(logits >= 0, 1 / (1 + e), e / (1 + e))
    return (x * logits - s).sum(axis=1), x - y


def gaussian(x, mu, log_var):
    precision = np.exp(-log_var)
    d = x - mu
    square = d**2 * precision
    log_p = -0.5 * (np.log(2 * np.pi) + log_var + square).sum(axis=1)
    return log_p, d * precision, 0.5 * (square - 1)


def prior(z):
    return -0.5 * (np.log(2 * np.pi) + z**2).sum(axis=1), -z


def neg_kl(mu, log_var):
    var = np.exp(log_var)
    return 0.5 * (1 + log_var - mu**2 - var).sum(axis=1), -mu, 0.5 * (1 - var)


def draw(mu, log_var, eps):
    sigma = np.exp(0.5 * log_var)
    return mu + sigma * eps


def draw_backward(mu, log_var, eps, dz):
    sigma = np.exp(0.5 * log_var)
    return dz.sum(axis=0), 0.5 * sigma * (dz * eps).sum(axis=0)


def bound_b_backward(mu, log_var, eps, dz):
    sigma = np.exp(0.5 * log_var)
    dmu = dz.mean(axis=0) - mu
    return dmu, 0.5 * sigma * (dz * eps).mean(axis=0) + 0.5 * (1 - sigma**2)


def log_q_backward(mu, log_var, eps):
    log_q = -0.5 * (np.log(2 * np.pi) + log_var + eps**2).sum(axis=2)
    return log_q, np.zeros(mu.shape), np.full(mu.shape, -0.5 * len(eps))


def bound_a_backward(mu, log_var, eps, dz):
    sigma = np.exp(0.5 * log_var)
    return dz.mean(axis=0), 0.5 * sigma * (dz * eps).mean(axis=0) + 0.5


def map_objective(theta, g, n_data):
    scale = n_data / len(g)
    log_prior = -0.5 * (np.log(2 * np.pi) + theta**2).sum()
    return scale * (g @ theta).sum() + log_prior, scale * g.sum(axis=0) - theta


def adagrad(theta, h, g, lr, eps):
    h = h + g**2
    return theta + lr * g / (np.sqrt(h) + eps), h


def leapfrog(z, p, grad, stepsize):
    p = p + 0.5 * stepsize * grad(z)
    z = z + stepsize * p
    return z, p + 0.5 * stepsize * grad(z)


def acceptance(log_p, p, new_log_p, new_p):
    rise = 0.5 * (new_p**2).sum(axis=1) - new_log_p - 0.5 * (p**2).sum(axis=1) + log_p
    rise = np.where(np.isnan(rise), np.inf, rise)
    return np.exp(np.minimum(0, -rise))


def theta_backward(mu, log_sigma, zeta, dtheta):
    sigma = np.exp(log_sigma)
    return dtheta, dtheta * sigma * zeta


def theta_kl(mu, log_sigma, alpha):
    var = np.exp(2 * log_sigma)
    a2 = alpha**2
    value = 0.5 * np.sum(1 + 2 * log_sigma - np.log(a2) - (mu**2 + var) / a2)
    return value, -mu / a2, 1 - var / a2


def full_vb_backward(mu, log_sigma, zeta, g, n_data):
    sigma = np.exp(log_sigma)
    total = n_data / len(g) * g.sum(axis=0)
    return total - mu, total * sigma * zeta + 1 - sigma**2


def score_gradient(f, z, mu, log_var):
    d = z - mu
    var = np.exp(log_var)
    dmu = (f[:, None] * d / var).mean(axis=0)
    return dmu, (f[:, None] * 0.5 * (d**2 / var - 1)).mean(axis=0)


def control_variate(f, score, other_f, other_score):
    weight = other_score**2
    a = (weight * other_f[:, None]).sum(axis=0) / weight.sum(axis=0)
    return a, (score * (f[:, None] - a)).mean(axis=0)


def log_mean_weights(log_w):
    largest = log_w.max(axis=0)
    w = np.exp(log_w - largest)
    total = w.sum(axis=0)
    return largest + np.log(total / len(w)), w / total


def appendix_d(log_q, log_p_z, log_p_x):
    terms = log_q - log_p_z - log_p_x
    largest = terms.max(axis=0)
    return -(largest + np.log(np.exp(terms - largest).mean(axis=0)))


def stl_backward(mu, log_var, eps, dz):
    sigma = np.exp(0.5 * log_var)
    dz = dz + eps / sigma
    return dz.mean(axis=0), 0.5 * sigma * (dz * eps).mean(axis=0)


def dreg_backward(mu, log_var, eps, log_w, dz):
    w = np.exp(log_w - log_w.max(axis=0))
    share = w / w.sum(axis=0)
    dz = share[..., None] ** 2 * dz
    return dz.sum(axis=0), 0.5 * np.exp(0.5 * log_var) * (dz * eps).sum(axis=0)


def full_draw(mu, factor, eps):
    z = mu + np.einsum("mij,lmj->lmi", factor, eps)
    log_det = np.log(np.einsum("mii->mi", factor)).sum(axis=1)
    return z, -0.5 * (np.log(2 * np.pi) + eps**2).sum(axis=2) - log_det


def ppca_posterior(x, W, mean, var):
    precision = np.eye(len(W)) + W @ W.T / var
    covariance = np.linalg.inv(precision)
    return (x - mean) @ W.T @ covariance / var, covariance


def local_backward(x, W_mu, W_log_sigma, zeta, dy):
    var = np.exp(2 * W_log_sigma)
    dv = dy * zeta / (2 * np.sqrt(x**2 @ var))
    dx = dy @ W_mu.T + 2 * x * (dv @ var.T)
    return dx, x.T @ dy, 2 * var * ((x**2).T @ dv)


def planar(z, u, w, b):
    t = np.tanh(z @ w + b)
    return z + t[:, None] * u, np.log(1 + (1 - t**2) * (w @ u))


def planar_backward(z, u, w, b):
    t = np.tanh(z @ w + b)
    s = 1 - t**2
    det = 1 + s * (w @ u)
    dx = -2 * t * s * (w @ u) / det
    du = (s / det).sum() * w
    dw = (s / det).sum() * u + dx @ z
    return np.log(det), du, dw, dx.sum(keepdims=True)


SOLUTIONS = {name: value for name, value in dict(globals()).items() if name in NUMBERS}

# Usual mistakes: what stands in the solution, what is written in its place, and the words about a result

WRONG = [
    ("tanh_backward", "1 - y * y", "y * y - 1", "dx", "the sign is wrong"),
    ("tanh_backward", "dy * (1 - y * y)", "1 - y * y", "dx", "dy is missing"),
    ("tanh_backward", "1 - y * y", "1 - x * x", "dx", "the square is that of y"),
    ("sigmoid_backward", "dy * e", "2 * dy * e", "da", "it is 2 times the right one"),
    ("sigmoid_backward", "np.exp(-np.abs(a))", "np.exp(-a)", EXACT, "NaN"),
    ("softplus", "np.maximum(a, 0) + np.log1p(e)", "np.log(1 + np.exp(a))", EXACT, "NaN or infinite"),
    ("softplus", "np.where(a >= 0, 1 / (1 + e), e / (1 + e))", "np.exp(a)", "da", "divides it by 1 + eᵃ"),
    ("affine_backward", "x.T @ dy", "dy.T @ x", "dW", "transposed"),
    ("affine_backward", "dy @ W.T", "dy @ W", "dx", "the product is with W, and should be with its transpose"),
    ("affine_backward", "dy.sum(axis=0)", "dy.mean(axis=0)", "db", "averaged over the M rows"),
    ("affine_backward", "dy.sum(axis=0)", "dy", "db", "of the shape (5, 3); expected an array of the shape (3,)"),
    ("heads_backward", " + dlog_var @ W_log_var.T", "", "dh", "through the head of log σ² is missing"),
    ("heads_backward", "h.T @ dmu,", "(h.T @ dmu).T,", "dW_mu", "it is transposed"),
    ("bernoulli", "x - y", "y - x", "dlogits", "the sign is wrong"),
    ("bernoulli", ".sum(axis=1)", ".mean(axis=1)", "log_p", "averaged over the D pixels"),
    ("gaussian", "0.5 * (square - 1)", "square - 1", "dlog_var", "a factor: it is 2 times the right one"),
    ("gaussian", "np.exp(-log_var)", "np.exp(-2 * log_var)", "dmu", "log_var is read as log σ"),
    ("gaussian", "np.log(2 * np.pi) + ", "", "log_p", "log 2π is missing"),
    ("prior", "-z\n", "z\n", "dz", "the sign"),
    ("prior", "-0.5 * ", "-", "log_p", "it is 2 times the right one"),
    ("neg_kl", "0.5 * (1 - var)", "1 - var", "dlog_var", "it is 2 times the right one"),
    ("neg_kl", "-mu,", "mu,", "dmu", "the sign is wrong"),
    ("draw", "0.5 * log_var", "log_var", "z", "it draws from another posterior"),
    (
        "draw_backward",
        "0.5 * sigma",
        "sigma",
        "dlog_var",
        "right gradient of another function: the one with respect to log σ",
    ),
    ("draw_backward", "sum", "mean", "dmu", "averaged over the L draws"),
    ("draw_backward", "dz.sum(axis=0)", "dz", "dmu", "not summed over its first axis"),
    ("draw_backward", "0.5 * log_var", "log_var", "dlog_var", "σ² stands where σ should"),
    ("bound_b_backward", "mean", "sum", "dmu", "1/L is missing"),
    ("bound_b_backward", "- mu", "+ mu", "dmu", "the sign of the KL's part"),
    ("log_q_backward", "-0.5 * len(eps)", "-0.5", "dlog_var", "averaged over the L draws"),
    (
        "log_q_backward",
        "np.zeros(mu.shape)",
        "(eps / np.exp(0.5 * log_var)).sum(axis=0)",
        "dmu",
        "the partial derivative",
    ),
    ("bound_a_backward", " + 0.5\n", "\n", "dlog_var", "the part through -log q is missing"),
    ("bound_a_backward", " + 0.5\n", " - 0.5\n", "dlog_var", "the sign of the part through log q"),
    ("map_objective", "- theta", "- scale * theta", "dtheta", "the prior is counted N/M times, and not once"),
    ("map_objective", "n_data / len(g)", "len(g) / n_data", "dtheta", "M/N stands where N/M should"),
    ("adagrad", "theta + lr", "theta - lr", "new_theta", "downhill"),
    ("adagrad", "np.sqrt(h) + eps", "np.sqrt(h + eps)", "new_theta", "eps stands inside the root"),
    ("leapfrog", "0.5 * ", "", "new_z", "whole ones, and should be halves"),
    ("leapfrog", "stepsize * p", "-stepsize * p", EXACT, "a harmonic oscillator"),
    ("acceptance", "-rise", "rise", "probability", "the sign of the energy"),
    ("acceptance", "np.isnan(rise)", "False", EXACT, "NaN"),
    ("theta_backward", "dtheta * sigma", "0.5 * dtheta * sigma", "dlog_sigma", "the ½ belongs to log σ²"),
    (
        "theta_backward",
        "np.exp(log_sigma)",
        "np.exp(0.5 * log_sigma)",
        "dlog_sigma",
        "the factor exp(log_sigma/2) is missing",
    ),
    ("theta_kl", "1 - var / a2", "0.5 * (1 - var / a2)", "dlog_sigma", "it is ½ times the right one"),
    ("theta_kl", "alpha**2", "alpha", "dmu", "α is read as α²"),
    ("full_vb_backward", "total - mu", "total - n_data / len(g) * mu", "dmu", "is counted N/M times, and not once"),
    ("full_vb_backward", "n_data / len(g) * ", "", "dmu", "N/M is missing"),
    ("score_gradient", "mean(axis=0)\n    return", "sum(axis=0)\n    return", "dmu", "it is S times the right one"),
    ("score_gradient", "z - mu", "mu - z", "dmu", "the sign of the score"),
    ("control_variate", "other_f[:, None]", "f[:, None]", "a", "another value"),
    (
        "control_variate",
        "    weight",
        "    other_f, other_score = f, score\n    weight",
        "a",
        "the draws that it corrects",
    ),
    ("log_mean_weights", " / len(w)", "", "bound", "1/K is missing"),
    ("log_mean_weights", "- largest", "", EXACT, "-1000"),
    ("appendix_d", "-(largest", "(largest", "log_p", "the sign"),
    ("appendix_d", "mean", "sum", "log_p", "1/L is missing"),
    ("stl_backward", "+ eps", "- eps", "dmu", "the sign of ∇_z log q"),
    ("stl_backward", "    dz = dz + eps / sigma\n", "", "dmu", "-log q is missing altogether"),
    ("dreg_backward", " ** 2 * dz", " * dz", "dmu", "the weights are not squared"),
    ("dreg_backward", "sum(axis=0), 0.5", "mean(axis=0), 0.5", "dmu", "averaged over the K draws"),
    ("full_draw", "mij,lmj->lmi", "mji,lmj->lmi", "z", "Fᵀ stands where F should"),
    ("full_draw", "- log_det", "- 2 * log_det", "log_q", "log|F| counts twice"),
    ("ppca_posterior", "covariance / var", "covariance", "z_mean", "1/σ² is missing"),
    ("ppca_posterior", "np.linalg.inv(precision)", "precision", "covariance", "this is the precision"),
    ("local_backward", "(2 * np.sqrt", "(np.sqrt", "dW_log_sigma", "it is 2 times the right one"),
    ("local_backward", " + 2 * x * (dv @ var.T)", "", "dx", "what comes through v is missing"),
    ("planar", "np.log(1 + (1 - t**2) * (w @ u))", "-np.log(1 + (1 - t**2) * (w @ u))", "log_det", "the sign"),
    ("planar", "(1 - t**2)", "t", "log_det", "tanh stands where its slope"),
    ("planar_backward", " + dx @ z", "", "dw", "the way through tanh is missing"),
    ("planar_backward", "dx = -2", "dx = 2", "db", "the sign is wrong"),
    # What is right at the arguments that are drawn, and nowhere else: a size or a number that is written by hand
    ("bound_b_backward", "dz.mean(axis=0)", "dz.sum(axis=0) / 3", EXACT, "expected 2, and 1 came"),
    ("bound_a_backward", "dz.mean(axis=0)", "dz.sum(axis=0) / 3", EXACT, "expected 3, and 2 came"),
    ("stl_backward", "dz.mean(axis=0)", "dz.sum(axis=0) / 3", EXACT, "expected 1, and 0.6666666667 came"),
    ("control_variate", "mean(axis=0)", "sum(axis=0) / 6", EXACT, "expected 1.25, and 0.8333333333 came"),
    ("full_vb_backward", "n_data / len(g)", "7", EXACT, "expected 199, and 27 came"),
    ("adagrad", "lr * g", "0.3 * g", EXACT, "expected 1.858960382"),
    ("leapfrog", "0.5 * stepsize", "0.15", EXACT, "a harmonic oscillator"),
    # and what overflows, or vanishes, or is clipped, where the arguments are large
    (
        "bernoulli",
        "np.maximum(logits, 0) + np.log1p(e)",
        "logits + np.log1p(np.exp(-logits))",
        EXACT,
        "NaN or infinite",
    ),
    ("bernoulli", "(x * logits - s)", "np.maximum(x * logits - s, -36)", EXACT, "expected -800, and -36 came"),
    ("log_mean_weights", "max(axis=0)", "max()", EXACT, "NaN or infinite"),
    ("log_mean_weights", "max(axis=0)", "min(axis=0)", EXACT, "NaN or infinite"),
    ("log_mean_weights", "max(axis=0)", "mean(axis=0)", EXACT, "NaN or infinite"),
    ("appendix_d", "max(axis=0)", "max()", EXACT, "NaN or infinite"),
    ("appendix_d", "max(axis=0)", "min(axis=0)", EXACT, "NaN or infinite"),
    ("dreg_backward", "max(axis=0)", "max()", EXACT, "NaN or infinite"),
]


def made(text):
    """The functions that a text defines."""
    module = types.ModuleType("answer")
    module.np = np
    exec(compile(text, "answer.py", "exec"), vars(module))
    return module


def verdict(number, function):
    """The notes on each result, of those that are wrong."""
    report = check(exercise_of(number), function)
    assert report.passed == all(row.passed for row in report)
    return {row.name: " | ".join(row.notes) for row in report if not row.passed}


def test_there_are_enough_exercises_with_names_and_titles_of_their_own():
    assert len(EXERCISES) >= 24
    assert len(NUMBERS) == len({one.title for one in EXERCISES}) == len(EXERCISES)
    assert SOLUTIONS.keys() == NUMBERS.keys() == {name for name, *_ in WRONG}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_right_solution_passes_and_what_was_shown_is_said(name):
    one = exercise_of(NUMBERS[name])
    report = check(one, SOLUTIONS[name])
    assert report, str(report)
    assert [row.name for row in report] == [*one.results, EXACT]
    shown = dict(zip([row.name for row in report], [row.notes[0] for row in report], strict=True))
    assert shown.pop(EXACT) == one.exact_case
    for result, said in shown.items():
        assert said == ("differences, and " * one.is_gradient(result) + "the library's lines")


@pytest.mark.parametrize("name", NUMBERS)
def test_the_blank_is_not_done_and_says_so(name):
    said = verdict(NUMBERS[name], exercise_of(NUMBERS[name]).blank)
    assert list(said) == [name] and said[name].startswith("not done yet")


@pytest.mark.parametrize(("name", "right", "wrong", "result", "words"), WRONG)
def test_a_usual_mistake_is_told_in_words(name, right, wrong, result, words):
    source = inspect.getsource(SOLUTIONS[name])
    assert right in source
    said = verdict(NUMBERS[name], getattr(made(source.replace(right, wrong)), name))
    assert words in said[result], said


def mistaken(one, words):
    """The solution of an exercise with a mistake that the exercise knows."""

    def answer(**arguments):
        results = SOLUTIONS[one.name](**arguments)
        results = list(results) if len(one.results) > 1 else [results]
        for k, wrong in enumerate(one.mistakes[words](**arguments)):
            if wrong is not None:
                results[k] = np.asarray(wrong, float)
        return tuple(results)

    return answer


MISTAKES = [(one.name, words) for one in EXERCISES for words in one.mistakes]


@pytest.mark.parametrize(("name", "words"), MISTAKES)
def test_every_mistake_that_an_exercise_knows_is_named_and_no_other(name, words):
    one = exercise_of(NUMBERS[name])
    said = verdict(NUMBERS[name], mistaken(one, words))
    named = [note.split(" | ")[0] for result, note in said.items() if result != EXACT]
    assert words in named
    assert not set(one.mistakes) & set(named) - {words}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_exact_case_sees_some_mistake(name):
    one = exercise_of(NUMBERS[name])
    source = inspect.getsource(SOLUTIONS[name])
    answers = [getattr(made(source.replace(right, wrong)), name) for other, right, wrong, *_ in WRONG if other == name]
    answers += [mistaken(one, words) for words in one.mistakes]
    assert not all(checking._exact(one, answer).passed for answer in answers)


def test_a_right_gradient_of_another_function_is_called_so():
    source = inspect.getsource(gaussian)
    log_sigma = source.replace("np.exp(-log_var)", "np.exp(-2 * log_var)").replace("+ log_var +", "+ 2 * log_var +")
    other = made(log_sigma.replace("0.5 * (square - 1)", "square - 1")).gaussian
    report = check(exercise_of(NUMBERS["gaussian"]), other)
    assert report.facts == [ANOTHER]
    assert all(
        report[result].notes[0].startswith("log_var is read as log σ") for result in ("log_p", "dmu", "dlog_var")
    )
    wrong = made(log_sigma).gaussian  # its gradient is that of neither function
    assert check(exercise_of(NUMBERS["gaussian"]), wrong).facts == []
    constant = made(source.replace("np.log(2 * np.pi) + ", "")).gaussian  # here all gradients are right
    assert check(exercise_of(NUMBERS["gaussian"]), constant).facts == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x += 1\n    return x", "it changes its argument x"),
        ("x = x.copy()", "it returns None; expected dx: is there a return?"),
        ("return None, None", "it returns 2 results; expected 1: dx"),
        ("return (None,)", "it is None; expected an array of the shape (5, 3)"),
        ("return 'dx'", "it is a str; expected an array of the shape (5, 3)"),
        ("return dy.tolist()", "it returns 5 results; expected 1: dx"),
        ("return dy.T", "it is of the shape (3, 5); expected an array of the shape (5, 3): it is transposed"),
        ("return 0.0", "it is one number; expected an array of the shape (5, 3)"),
        ("return dy.sum(axis=0)", "it is summed over its first axis, and should not be"),
        ("return dy.astype(np.float32)", "it holds float32; expected float64"),
        ("return np.ones((5, 3), int)", "it holds int64; expected float64"),
        ("return dy / 0", "not a number: 15 of 15 entries are NaN or infinite"),
        ("return 0 * dy", "it is 0 everywhere"),
        (
            "return np.random.default_rng().random(x.shape)",
            "another call with the same arguments returns something else",
        ),
        ("return {}['a b']", "it raises KeyError in line 2: 'a b'"),
        ("raise SystemExit", "it raises SystemExit in line 2"),
        ("return tanh_backward(x, dy)", "it raises RecursionError in line 2"),
    ],
)
def test_an_answer_that_cannot_be_compared_gets_one_clear_line(text, words):
    said = verdict(1, made(f"def tanh_backward(x, dy):\n    {text}\n").tanh_backward)
    notes = next(iter(said.values()))
    assert words in notes and "\n" not in notes


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize(
    "form",
    [
        "np.matrix(dx)",
        "np.asfortranarray(dx)",
        "np.repeat(dx, 2, axis=0)[::2]",
        "[dx]",
        "np.ma.masked_array(dx)",
        "(dx,)",
    ],
)
def test_a_right_answer_passes_in_every_form_of_an_array(form):
    text = f"def tanh_backward(x, dy):\n    dx = dy * (1 - np.tanh(x) ** 2)\n    return {form}\n"
    assert verdict(1, made(text).tanh_backward) == {}


def test_an_error_that_differences_do_not_see_is_seen_beside_the_librarys_lines():
    text = "def tanh_backward(x, dy):\n    return dy * (1 - np.tanh(x) ** 2) * (1 + 3e-8)\n"
    said = verdict(1, made(text).tanh_backward)
    assert said["dx"] == "right by differences, but 3.0e-08 from the library's lines"


def test_what_is_right_is_told_first_even_where_the_first_result_is_wrong(run):
    written("gaussian", text=inspect.getsource(gaussian).replace("np.log(2 * np.pi) + ", ""))
    code, out = run(7, "my.py")
    told = [line.split()[:2] for line in out.splitlines() if line.startswith(("right", "wrong"))]
    assert code == 1
    assert told == [["right", "dmu"], ["right", "dlog_var"], ["wrong", "log_p"], ["wrong", "exact"]]


def test_entries_under_a_mask_are_compared_too():
    text = "return np.ma.masked_array(dy * (1 - np.tanh(x)), mask=np.arange(x.size).reshape(x.shape) > 0)"
    assert "dx" in verdict(1, made(f"def tanh_backward(x, dy):\n    {text}\n").tanh_backward)


def test_results_that_an_answer_keeps_in_one_array_do_not_change_under_the_comparison():
    lines = "kept[:] = dy * (1 - np.tanh(x) ** 2) * (1 + (kept[0, 0] != 7))\n    return kept"
    module = made(f"def tanh_backward(x, dy):\n    {lines}\n")
    module.kept = np.full((5, 3), 7.0)  # the first call is right, and those that follow are not
    assert "another call with the same arguments returns something else" in verdict(1, module.tanh_backward)["dx"]


@pytest.mark.parametrize("wrong", ["None", "'value'", "np.full((), 'value')", "1j", "np.zeros((), [('a', float)])"])
def test_a_value_that_is_no_number_is_told_in_one_line(wrong):
    text = inspect.getsource(map_objective).replace("return scale * (g @ theta).sum() + log_prior", f"return {wrong}")
    notes = verdict(NUMBERS["map_objective"], made(text).map_objective)["value"]
    assert "; expected " in notes and "\n" not in notes


def test_an_argument_too_few_is_told_in_one_line():
    said = verdict(1, lambda x: x)
    assert said["tanh_backward"] == "it takes (x); expected (x, dy)"


def calls(function):
    """The names of the library's objects that a function reads, through functions of the exercises."""
    names = set(function.__code__.co_names)
    for constant in function.__code__.co_consts:
        names |= set(getattr(constant, "co_names", ()))
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        where = getattr(value, "__module__", None) or ""
        if where.startswith("scratchvae.exercises") and inspect.isfunction(value):
            yield from calls(value)
        elif where.startswith("scratchvae."):
            yield name


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_differentiated_is_written_out_and_is_the_same_as_the_librarys(name):
    one = exercise_of(NUMBERS[name])
    assert list(calls(one.naive)) == []
    arguments = one.arguments(np.random.default_rng(5))
    if one.values:
        naive = one.naive(**arguments)
        naive = naive if isinstance(naive, tuple) else (naive,)
        right = dict(zip(one.results, one.library(**arguments), strict=True))
        for value, theirs in zip(naive, (right[result] for result in one.values), strict=True):
            np.testing.assert_allclose(value, theirs, rtol=1e-9, atol=1e-12)


def test_every_derivation_stands_in_the_reading():
    rows = set()
    for path in (Path(exercises.__file__).parents[1] / "reading" / "pages").glob("*.md"):
        page = path.stem.partition("-")[2]
        for names in re.findall(r"^#{2,3} .*\{([^}]*)\}$", path.read_text(encoding="utf-8"), re.MULTILINE):
            rows |= {f"{page}.html#{name}" for name in names.split()}
    assert {one.reading for one in EXERCISES} <= rows


# The command


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function that runs `scratchvae exercise` in an empty folder, and returns its exit code and what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(["exercise", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def written(name, path="my.py", text=None):
    """Write a solution, or another text, into a file."""
    Path(path).write_text("import numpy as np\n\n\n" + (text or inspect.getsource(SOLUTIONS[name])), encoding="utf-8")


def states():
    return json.loads(Path("runs/exercises.json").read_text(encoding="utf-8"))["states"]


def test_an_exercise_is_listed_shown_started_hinted_and_solved(run):
    code, out = run()
    assert code == 0 and not Path("runs").exists()
    assert [line.split()[0] for line in out.splitlines()[: len(EXERCISES)]] == [str(k) for k in NUMBERS.values()]
    assert all(line.endswith(" -") for line in out.splitlines()[: len(EXERCISES)])
    for words in (f"0 of {len(EXERCISES)} are solved", "1 --start", "1 exercise_01.py", "1 --hint"):
        assert words in out
    code, out = run(7)
    assert code == 0 and "def gaussian(x, mu, log_var):" in out and "7 --start" in out
    code, out = run(7, "--hint")
    assert code == 0 and exercise_of(7).hint in out and "runs/reading/vae.html#eq-9" in out
    assert not Path("runs").exists()

    code, out = run(7, "--start")
    assert code == 0 and "scratchvae exercise 7 exercise_07.py" in out
    blank = Path("exercise_07.py").read_text(encoding="utf-8")
    assert "log N(x; μ, σ² I) = -½ Σ_i" in blank and "scratchvae exercise 7 --hint" in blank
    assert states() == {"gaussian": "started"}
    assert check(exercise_of(7), made(blank).gaussian).rows[0].notes[0].startswith("not done yet")

    Path("exercise_07.py").write_text(
        blank.replace("    raise NotImplementedError\n", body("gaussian")), encoding="utf-8"
    )
    code, out = run(7, "exercise_07.py")
    assert code == 0, out
    assert out.startswith("right  log_p       the library's lines\n") and "vae.html#eq-9" in out and "1 --start" in out
    assert states() == {"gaussian": "solved"}
    wrong = inspect.getsource(gaussian).replace("0.5 * (square - 1)", "square - 1")
    written("gaussian", text=f"print('shape', (5, 3))\n{wrong}")
    code, out = run(7, "my.py")
    assert code == 1 and out.startswith("my.py prints:\nshape (5, 3)\n\nright") and "7 --hint" in out
    lines = [line.split()[0] for line in out.splitlines() if line.startswith(("right", "wrong"))]
    assert lines == ["right", "right", "wrong", "wrong"]  # first what is right
    assert states() == {"gaussian": "solved"}  # and stays so
    assert "solved" in run()[1].splitlines()[6]


def body(name):
    return "".join(inspect.getsource(SOLUTIONS[name]).splitlines(keepends=True)[1:])


def test_no_file_is_overwritten(run):
    Path("exercise_03.py").write_text("mine", encoding="utf-8")
    Path("other.txt").write_text("mine", encoding="utf-8")
    code, out = run(3, "--start")
    assert code == 2 and "exercise_03.py is there already, and is not overwritten" in out and out.count("\n") == 1
    assert run(3, "other.txt", "--start")[0] == 2
    assert Path("exercise_03.py").read_text(encoding="utf-8") == Path("other.txt").read_text(encoding="utf-8") == "mine"
    assert not Path("runs").exists()
    assert run(3, "another.py", "--start")[0] == 0 and "def softplus" in Path("another.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": "scratchvae exercises"}',
        '{"format": "x", "states": {}}',
        "\xff",
        '{"format": "scratchvae exercises", "states": {"gaussian": "done"}}',
        '{"format": "scratchvae exercises", "states": {"gaussian": []}}',
    ],
)
def test_a_record_that_is_broken_or_foreign_is_named_and_left_alone(run, content):
    Path("runs").mkdir()
    Path("runs/exercises.json").write_bytes(content.encode("latin-1"))
    written("tanh_backward")
    for words in ((), (1, "--start"), (1, "my.py")):
        code, out = run(*words)
        assert code == 2 and "runs/exercises.json is no record of exercises" in out and "move it away" in out, out
        assert out.count("\n") == 1
    assert Path("runs/exercises.json").read_bytes() == content.encode("latin-1")
    assert not Path("exercise_01.py").exists()


def test_what_cannot_be_read_or_written_is_named(run):
    assert run(1, "there_is_none/my.py", "--start")[1].startswith("scratchvae: error: there_is_none/my.py cannot be")
    Path("runs").write_text("mine", encoding="utf-8")
    code, out = run(1, "--start")
    assert code == 2 and "runs/exercises.json, the record of exercises, cannot be written" in out
    Path("runs").unlink()
    Path("runs/exercises.json").mkdir(parents=True)
    code, out = run()
    assert code == 2 and "runs/exercises.json, the record of exercises, cannot be read" in out


def test_a_file_may_have_dots_and_blanks_in_its_name_and_print_anything(run, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    text = f"print('x' * 5000 + 'α')\n\n\n{inspect.getsource(tanh_backward)}"
    written("tanh_backward", "my own.solution.py", text)
    code, out = run(1, "my own.solution.py")
    assert code == 0, out
    assert out.startswith(f"my own.solution.py prints:\n…{3997 * 'x'}") and "α\n\nright" in out  # its end


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing, which stands for a disk that is full")
def test_where_the_disk_is_full_no_half_of_a_file_is_left(run, monkeypatch):
    import builtins

    def full(path, mode, **settings):
        Path(path).touch(exist_ok=False)
        return real("/dev/full", "w", **settings)

    real = builtins.open
    monkeypatch.setattr("scratchvae.cli.exercise.open", full, raising=False)
    code, out = run(1, "--start")
    assert code == 2 and "exercise_01.py cannot be written (No space left on device)" in out
    assert list(Path().iterdir()) == []


def test_a_record_of_other_exercises_keeps_them(run):
    Path("runs").mkdir()
    Path("runs/exercises.json").write_text(
        '{"format": "scratchvae exercises", "states": {"of_tomorrow": "solved"}}', encoding="utf-8"
    )
    assert run(1, "--start")[0] == 0
    assert states() == {"of_tomorrow": "solved", "tanh_backward": "started"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((99,), "there is no exercise 99; expected 1 to "),
        ((0,), "there is no exercise 0"),
        ((1, "none.py"), "none.py is no file *.py"),
        ((1, "."), ". is no file *.py"),
        (("--start",), "--start needs the number of an exercise"),
        (("--hint",), "--hint needs the number of an exercise, as in 7 --hint"),
        ((1, "mine.py", "--start", "other.py"), "two files came, mine.py and other.py"),
        ((1, "my.py", "--hint"), "--hint goes with a number alone"),
        ((2, "my.py"), "my.py has no function sigmoid_backward(a, dy), which exercise 2 asks for"),
        ((1, "my.py", "--seconds", "0"), "--seconds"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(run, words, told):
    written("tanh_backward")
    code, out = run(*words)
    assert code == 2 and told in out and out.count("\n") == 1, out
    assert not Path("runs").exists()


def test_a_word_in_place_of_a_number_is_refused(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("seven")
    assert stopped.value.code == 2
    assert "'seven'; expected the number of an exercise, such as 7" in capsys.readouterr().err


def test_a_file_that_never_ends_is_ended(run):
    written("tanh_backward", text="def tanh_backward(x, dy):\n    while True:\n        pass\n")
    code, out = run(1, "my.py", "--seconds", "1")
    assert code == 1 and "wrong  did not finish: it takes more than 1 s" in out
    assert states() == {"tanh_backward": "started"}


def test_a_file_that_cannot_be_read_by_python_is_told_in_one_line(tmp_path):
    path = tmp_path / "my.py"
    path.write_text("def tanh_backward(x, dy)\n    return dy\n", encoding="utf-8")
    marked = mark(path, checks=(CHECKS, "1"))
    assert marked["checks"] == [] and "SyntaxError" in marked["reason"] and "(my.py, line 1)" in marked["reason"]


def test_the_file_that_start_writes_may_stand_behind_it(run):
    assert run(9, "--start", "mine.py")[0] == 0
    assert Path("mine.py").read_text(encoding="utf-8").startswith('"""Exercise 9')


FACTORS = {  # how the words of a mistake begin that is a factor alone: the factor, from the sizes of the exercise
    "the ½ is missing: this is twice": lambda sizes: 2,
    "half of it": lambda sizes: 1 / 2,
    "averaged over the M rows": lambda sizes: 1 / sizes["M"],
    "averaged over the D pixels": lambda sizes: 1 / sizes["D"],
    "averaged over the J latents": lambda sizes: 1 / sizes["J"],
    "averaged over the L draws": lambda sizes: 1 / sizes["L"],
    "averaged over the K draws": lambda sizes: 1 / sizes["K"],
    "the mean over the P parameters": lambda sizes: 1 / sizes["P"],
    "summed over the S draws": lambda sizes: sizes["S"],
    "1/L is missing: the bound is a mean": lambda sizes: sizes["L"],
    "the weights sum to K": lambda sizes: sizes["K"],
    "this is the objective of one datapoint: N times": lambda sizes: 1 / sizes["N"],
    "the sign: this is KL": lambda sizes: -1,
    "the sign: this is log 1/p(x)": lambda sizes: -1,
}
OF_FACTORS = [
    pytest.param(one, mistake, factor, id=f"{one.name}-{words[:30]}")
    for one in EXERCISES
    for words, mistake in one.mistakes.items()
    for begin, factor in FACTORS.items()
    if words.startswith(begin) and one.name != "bound_b_backward"  # there the factor is that of a part
]


@pytest.mark.parametrize(("one", "mistake", "factor"), OF_FACTORS)
def test_a_mistake_whose_words_name_a_factor_has_this_factor(one, mistake, factor):
    arguments = one.arguments(np.random.default_rng(0))
    right = one.library(**copy.deepcopy(arguments))
    wrong = mistake(**copy.deepcopy(arguments))
    told = [(r, w) for r, w in zip(right, wrong, strict=True) if w is not None]
    assert told
    for r, w in told:
        np.testing.assert_allclose(w, factor(one.sizes) * np.asarray(r), rtol=1e-9)


GOLDEN = Path(__file__).with_name("golden_mistakes.json")


def numbers_of_mistakes(one):
    """What each mistake of an exercise gives at fixed arguments, by its words: for each result its sum and another
    projection, or None where the mistake says nothing of it."""
    found = {}
    for words, mistake in one.mistakes.items():
        results = [None if r is None else np.ravel(r) for r in mistake(**one.arguments(np.random.default_rng(3)))]
        found[words] = [None if r is None else [float(r.sum()), float(r @ np.cos(np.arange(r.size)))] for r in results]
    return found


@pytest.mark.parametrize("one", EXERCISES, ids=lambda one: one.name)
def test_every_usual_mistake_gives_the_numbers_that_were_read_beside_its_words_and_one_for_each_result(one):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = numbers_of_mistakes(one)
    assert golden.keys() == NUMBERS.keys() and found.keys() == golden[one.name].keys()
    for words, results in found.items():
        assert len(results) == len(one.results), words
        for result, expected in zip(results, golden[one.name][words], strict=True):
            assert (result is None) == (expected is None), words
            if result is not None:
                np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12, err_msg=words)


if __name__ == "__main__":
    lines = {
        one.name: [f"{json.dumps(w, ensure_ascii=False)}: {json.dumps(r)}" for w, r in numbers_of_mistakes(one).items()]
        for one in EXERCISES
    }
    blocks = [f'"{name}": {{\n' + ",\n".join(rows) + "\n}" for name, rows in lines.items()]
    GOLDEN.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")  # a line for each mistake
