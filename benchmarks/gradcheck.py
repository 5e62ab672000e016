"""How well the gradient checker sees and names faults. python benchmarks/gradcheck.py

    alarms    right gradients of random networks, of all layers, with kinks, at scales from 1e-9 to 1e9: none may fail
    misses    the same with one wrong entry, by 0.001 to 1 of its array's largest: all must fail
    named     known faults in six layers and densities, and what is said about each
    strangers 140 mistakes in 20 larger systems, listed by two who had not seen the checker (strangers/)
    speed     a layer of 15 weights, and a network of 397,510 parameters

Each part prints what it counted, and the program ends with exit code 1 if a bar is missed. `--scale 0.01` is a short
look. The random networks' gradients are those of autograd.
"""

import argparse
import functools
import itertools
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from output import prepare, write
from strangers import first, second

from scratchvae.gradcheck import check_gradients, check_layer
from scratchvae.gradcheck.faults import UNKNOWN
from scratchvae.nets.layers import Linear

ACTIVATIONS = ("tanh", "relu", "softplus", "sigmoid", "abs", "linear")


# Random networks


def activation(name, a, np):
    """Return an activation of a in NumPy, or in autograd's."""
    return {
        "tanh": lambda: np.tanh(a),
        "relu": lambda: a * (a > 0),
        "softplus": lambda: np.logaddexp(0.0, a),
        "sigmoid": lambda: 0.5 * (1 + np.tanh(0.5 * a)),
        "abs": lambda: np.abs(a),
        "linear": lambda: a,
    }[name]()


def network(seed):
    """Return (params, loss) of a random network with up to three hidden layers, and up to 500 parameters.

    Weights, and the loss, have scales between 1e-9 and 1e9; three in ten biases are 0. The loss is a squared error, a
    cross entropy or a weighted sum. loss(params, np) takes autograd's NumPy too.
    """
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 4))
    widths = rng.integers(1, 12, depth + 2)
    rows = int(rng.integers(1, 8))
    scale = 10.0 ** rng.uniform(-9, 9)
    units = [10.0 ** rng.uniform(-9, 9) if rng.random() < 0.3 else 1.0 for _ in range(depth + 1)]
    kinds = [*rng.choice(ACTIVATIONS, depth), "linear"]
    x = rng.standard_normal((rows, widths[0]))
    params = {}
    for k in range(depth + 1):
        weights = rng.standard_normal((widths[k], widths[k + 1])) / np.sqrt(widths[k])
        params[f"W{k}"] = units[k] * weights
        zero = rng.random() < 0.3
        params[f"b{k}"] = units[k] * (0.0 if zero else 1.0) * rng.standard_normal(widths[k + 1])
    y = rng.standard_normal((rows, widths[-1]))
    labels = rng.integers(0, widths[-1], rows)
    form = rng.choice(["squares", "softmax", "sum"])

    def loss(params, np=np):
        h = x
        for k, kind in enumerate(kinds):
            h = activation(kind, (np.dot(h, params[f"W{k}"]) + params[f"b{k}"]) / units[k], np)
        if form == "squares":
            return scale * 0.5 * np.sum((h - y) ** 2)
        if form == "sum":
            return scale * np.sum(y * h)
        top = np.max(h, axis=1, keepdims=True)
        log_sum = np.log(np.sum(np.exp(h - top), axis=1)) + top[:, 0]
        return scale * (np.sum(log_sum) - np.sum(h[np.arange(rows), labels]))

    return params, loss


def gradient_of(loss):
    """Return the gradient of a loss by autograd, as a function of its params."""
    import autograd.numpy as anp
    from autograd import grad

    return grad(lambda params: loss(params, anp))


def alarms(count):
    """Return how many of `count` right gradients are called wrong."""
    wrong = []
    for seed in range(count):
        params, loss = network(seed)
        report = check_gradients(functools.partial(loss), params, gradient_of(loss), seed=seed)
        if not report:
            wrong.append(seed)
    return wrong


def planted(seed, gradient):
    """Make one entry of a gradient wrong by 0.001 to 1 of its array's largest, and return the array's name."""
    rng = np.random.default_rng([seed, 7])
    names = [name for name, array in gradient.items() if np.abs(array).max() > 0]
    name = names[rng.integers(len(names))]
    array = gradient[name]
    place = tuple(rng.integers(0, size) for size in array.shape)
    array[place] += np.abs(array).max() * 10 ** rng.uniform(-3, 0) * rng.choice([-1, 1])
    return name


def misses(count):
    """Return the seeds of wrong gradients that pass by differences alone, and of those that pass beside an oracle."""
    import autograd.numpy as anp

    unseen = []
    unseen_by_oracle = []
    for seed in range(count):
        params, loss = network(seed)
        gradient = gradient_of(loss)(params)
        if not any(array.any() for array in gradient.values()):
            continue
        name = planted(seed, gradient)
        if check_gradients(lambda p, loss=loss: loss(p), params, gradient, seed=seed)[name].passed:
            unseen.append(seed)
        witness = functools.partial(lambda loss, p: loss(p, anp), loss)
        if check_gradients(lambda p, loss=loss: loss(p), params, gradient, oracle=witness, seed=seed)[name].passed:
            unseen_by_oracle.append(seed)
    return unseen, unseen_by_oracle


def stated(count):
    """Return the seeds of networks of more than 2,000 parameters where an error of 1.5 times what is stated passes."""
    unseen = []
    for seed in range(count):
        rng = np.random.default_rng([seed, 11])
        inputs, hidden, out = (int(n) for n in rng.integers(40, 120, 3))
        x = rng.standard_normal((8, inputs))
        y = rng.standard_normal((8, out))
        params = {"W": rng.standard_normal((inputs, hidden)) / 8, "V": rng.standard_normal((hidden, out)) / 8}

        def loss(params, np=np, x=x, y=y):
            return np.sum((np.dot(np.tanh(np.dot(x, params["W"])), params["V"]) - y) ** 2)

        gradient = gradient_of(loss)(params)
        sees = check_gradients(lambda p, loss=loss: loss(p), params, gradient, seed=seed)["W"].sees
        gradient["W"][tuple(rng.integers(0, n) for n in (inputs, hidden))] += 1.5 * sees * rng.choice([-1, 1])
        if check_gradients(lambda p, loss=loss: loss(p), params, gradient, seed=seed)["W"].passed:
            unseen.append(seed)
    return unseen


# Known faults, and what is said about them


def rows_of(seed, *shapes):
    """Return arrays of standard normal numbers."""
    rng = np.random.default_rng([seed, 13])
    return [rng.standard_normal(shape) for shape in shapes]


def affine(seed):
    """The loss ½ Σ (x W + b - y)² / M, with W square, so that it can be transposed."""
    W, b, x, y = rows_of(seed, (5, 5), 5, (7, 5), (7, 5))

    def grads(p):
        d = (x @ p["W"] + p["b"] - y) / 7
        return {"W": x.T @ d, "b": d.sum(axis=0)}

    return {"W": W, "b": b}, lambda p: 0.5 * ((x @ p["W"] + p["b"] - y) ** 2).sum() / 7, grads


def layer_norm(seed):
    """The loss Σ c ⊙ (γ ⊙ h + β), h normalised by row."""
    x, gamma, beta, c = rows_of(seed, (7, 6), 6, 6, (7, 6))

    def parts(p):
        s = np.sqrt(p["x"].var(axis=1, keepdims=True) + 1e-5)
        return s, (p["x"] - p["x"].mean(axis=1, keepdims=True)) / s

    def grads(p, mean=True, spread=True):
        s, h = parts(p)
        d = p["gamma"] * c
        dx = d - mean * d.mean(axis=1, keepdims=True) - spread * h * (d * h).mean(axis=1, keepdims=True)
        return {"x": dx / s, "gamma": (c * h).sum(axis=0), "beta": c.sum(axis=0)}

    return {"x": x, "gamma": gamma, "beta": beta}, lambda p: c * (p["gamma"] * parts(p)[1] + p["beta"]), grads


def softmax(seed):
    """The cross entropy of labels, averaged over M rows."""
    a, labels = rows_of(seed, (7, 5))[0], np.random.default_rng(seed).integers(0, 5, 7)

    def loss(p):
        return (np.log(np.exp(p["a"]).sum(axis=1)) - p["a"][np.arange(7), labels]) / 7

    def grads(p, hot=1.0):
        e = np.exp(p["a"])
        return {"a": (e / e.sum(axis=1, keepdims=True) - hot * np.eye(5)[labels]) / 7}

    return {"a": a}, loss, grads


def student_t(seed):
    """The log density of Student's t with 5 degrees of freedom, weighted."""
    x, mu, log_sigma, c = rows_of(seed, *[(7, 4)] * 4)

    def loss(p):
        r = (x - p["mu"]) * np.exp(-p["log_sigma"])
        return c * (-p["log_sigma"] - 3 * np.log1p(r * r / 5))

    def grads(p, constant=1.0):
        r = (x - p["mu"]) * np.exp(-p["log_sigma"])
        w = 6 / (5 + r * r)
        return {"mu": c * w * r * np.exp(-p["log_sigma"]), "log_sigma": c * (w * r * r - constant)}

    return {"mu": mu, "log_sigma": log_sigma}, loss, grads


def gaussian_kl(seed):
    """-KL(N(μ, σ²) ‖ N(0, 1)), scaled by N/M as in a minibatch, with M = 7 and N = 100."""
    mu, log_var = rows_of(seed, (7, 3), (7, 3))

    def loss(p):
        return 100 / 7 * 0.5 * (1 + p["log_var"] - p["mu"] ** 2 - np.exp(p["log_var"]))

    def grads(p):
        return {"mu": -100 / 7 * p["mu"], "log_var": 100 / 7 * 0.5 * (1 - np.exp(p["log_var"]))}

    return {"mu": mu, "log_var": log_var}, loss, grads


def two_layers(seed):
    """½ Σ (tanh(x W + b) V - y)² / M - ½ α ‖V‖², α = 0.3, a prior on the second weights."""
    W, b, V, x, y = rows_of(seed, (6, 5), 5, (5, 4), (7, 6), (7, 4))

    def loss(p):
        out = np.tanh(x @ p["W"] + p["b"]) @ p["V"]
        return 0.5 * ((out - y) ** 2).sum() / 7 - 0.15 * (p["V"] ** 2).sum()

    def grads(p, prior=1.0):
        h = np.tanh(x @ p["W"] + p["b"])
        d = (h @ p["V"] - y) / 7
        dh = (d @ p["V"].T) * (1 - h * h)
        return {"W": x.T @ dh, "b": dh.sum(axis=0), "V": h.T @ d - prior * 0.3 * p["V"]}

    return {"W": W, "b": b, "V": V}, loss, grads


CASES = {f.__name__: f for f in (affine, layer_norm, softmax, student_t, gaussian_kl, two_layers)}


def scaled(name, k):
    """Return a fault that multiplies a gradient by k."""
    return name, lambda g, p, grads: {**g, name: k * g[name]}


def changed(name, change):
    """Return a fault that changes a copy of a gradient in place."""

    def fault(g, p, grads):
        copy = g[name].copy()
        result = change(copy)
        return {**g, name: copy if result is None else result}

    return name, fault


def cleared(index):
    """Return a change that sets some entries to 0."""
    return lambda array: array.__setitem__(index, 0.0)


def times(index, k):
    """Return a change that multiplies some entries by k."""
    return lambda array: array.__setitem__(index, k * array[index])


def formula(name, **settings):
    """Return a fault in the formula itself: what the case's gradient gives with other settings."""
    return name, lambda g, p, grads: grads(p, **settings)


FAULTS = {  # by case: (words that must be said, the array, the fault)
    "affine": [
        ("sign", *scaled("W", -1)),
        ("½ times", *scaled("W", 0.5)),
        ("2 times", *scaled("b", 2)),
        ("M times", *scaled("W", 7)),
        ("1/M times", *scaled("b", 1 / 7)),
        ("transposed", *changed("W", lambda a: a.T.copy())),
        ("not written", *changed("W", cleared(...))),
        ("row 2", *changed("W", cleared(2))),
        ("column 3", *changed("W", times((slice(None), 3), 2))),
        ("entry [1, 2]", *changed("W", times((1, 2), 1.01))),
        ("averaged over all", *changed("b", lambda a: np.full_like(a, a.mean()))),
        ("summed over all", *changed("b", lambda a: np.full_like(a, a.sum()))),
        ("not a number", *changed("W", lambda a: a.__setitem__((0, 0), np.nan))),
        ("reversed order", *changed("b", lambda a: a[::-1].copy())),
        ("above the diagonal", *changed("W", lambda a: np.tril(a))),
    ],
    "layer_norm": [
        ("average over the row", *formula("x", mean=False)),
        ("variance of the row", *formula("x", spread=False)),
        ("1/M times", *scaled("beta", 1 / 7)),
        ("sign", *scaled("x", -1)),
        ("exchanged", "gamma", lambda g, p, grads: {**g, "gamma": g["beta"]}),
        ("entry [3]", *changed("beta", times(3, 0.5))),
        ("-2.5 times", *scaled("gamma", -2.5)),
    ],
    "softmax": [
        ("M times", *scaled("a", 7)),
        ("one entry of each row", *formula("a", hot=0.0)),
        ("sign", *scaled("a", -1)),
        ("rows 1, 4", *changed("a", cleared([1, 4]))),
        ("absolute value", *changed("a", np.abs)),
    ],
    "student_t": [
        ("sign", *scaled("mu", -1)),
        ("½ times", *scaled("log_sigma", 0.5)),
        ("column 0", *changed("mu", cleared((slice(None), 0)))),
        ("exchanged", "mu", lambda g, p, grads: {**g, "mu": g["log_sigma"]}),
        ("not written", *changed("log_sigma", cleared(...))),
    ],
    "gaussian_kl": [
        ("M/N times", *scaled("mu", 7 / 100)),
        ("2 times", *scaled("log_var", 2)),
        ("N times", *scaled("mu", 100)),
        ("-½ times", *scaled("log_var", -0.5)),
        ("off by", "log_var", lambda g, p, grads: {**g, "log_var": g["log_var"] + 0.7}),
        ("1/N times", *scaled("mu", 1 / 100)),
    ],
    "two_layers": [
        ("times V", *formula("V", prior=0.0)),
        ("times V", *formula("V", prior=2.0)),
        ("1/M times", *scaled("b", 1 / 7)),
        ("right numbers", *changed("W", lambda a: a.T.reshape(a.shape).copy())),
        ("row 0", *changed("W", times(0, -1))),
        ("off by", "W", lambda g, p, grads: {**g, "W": g["W"] + 0.01}),
        ("1.3 times", *scaled("V", 1.3)),
    ],
}


def named(seeds):
    """Yield (case, words, what was said first, whether it was seen) for every fault and seed."""
    for case, faults in FAULTS.items():
        for words, name, fault in faults:
            for seed in range(seeds):
                params, loss, grads = CASES[case](seed)
                right = grads(params)
                wrong = fault(right, params, grads)
                report = check_gradients(
                    lambda p, loss=loss: loss(p), params, wrong, sizes={"M": 7, "N": 100}, seed=seed
                )
                row = report[name]
                yield case, words, row.notes[0] if row.notes else "", not row.passed


def strangers(lists):
    """Return counts for lists of cases: right gradients that fail, wrong ones that pass, and what was said of the rest.

    A fault is "named" if each array that it makes wrong was given a fault or its place, "named in part" if one was, and
    "only seen" if the report says of all that no usual fault explains them.
    """
    counts = dict.fromkeys(("right that fail", "wrong that pass", "named", "named in part", "only seen"), 0)
    for _, fault, make in itertools.chain(*lists):
        loss, params, grads, sizes = make(np.random.default_rng(0))
        report = check_gradients(loss, params, grads, sizes=sizes)
        open_ = [UNKNOWN in row.notes[0] for row in report if not row.passed]
        if not fault:
            counts["right that fail"] += not report
        elif report:
            counts["wrong that pass"] += 1
        else:
            counts["only seen" if all(open_) else "named in part" if any(open_) else "named"] += 1
    return counts


# Speed


def network_of_397510():
    """Return (loss, params, grads) of a classifier 784-500-10 on 100 rows."""
    rng = np.random.default_rng(0)
    x = rng.random((100, 784))
    labels = rng.integers(0, 10, 100)
    params = {"W": rng.standard_normal((784, 500)) / 28, "b": np.zeros(500)}
    params |= {"V": rng.standard_normal((500, 10)) / 22, "c": np.zeros(10)}

    def forward():
        h = np.tanh(x @ params["W"] + params["b"])
        return h, h @ params["V"] + params["c"]

    def loss():
        a = forward()[1]
        return (np.log(np.exp(a).sum(axis=1)) - a[np.arange(100), labels]) / 100

    def grads():
        h, a = forward()
        e = np.exp(a)
        d = (e / e.sum(axis=1, keepdims=True) - np.eye(10)[labels]) / 100
        dh = (d @ params["V"].T) * (1 - h * h)
        return {"W": x.T @ dh, "b": dh.sum(axis=0), "V": h.T @ d, "c": d.sum(axis=0)}

    return loss, params, grads


def speed(repeats):
    """Return the median milliseconds of a check of a small layer and the seconds of one of the network."""
    x = np.random.default_rng(0).standard_normal((4, 5))
    layer = Linear("l", 5, 3)
    small = []
    for _ in range(max(20 * repeats, 5)):
        begun = time.perf_counter()
        check_layer(layer, x)
        small.append(time.perf_counter() - begun)
    large = []
    for _ in range(repeats):
        begun = time.perf_counter()
        report = check_gradients(*network_of_397510())
        large.append(time.perf_counter() - begun)
        report.raise_if_failed()
    return 1e3 * float(np.median(small)), float(np.median(large))


def main(arguments=None):
    """Run the parts, print the tables, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="the share of the networks that are tried (1)")
    parser.add_argument("--out", type=Path, help="a file for the results, as JSON")
    given = parser.parse_args(arguments)
    if given.out:
        prepare(parser, given.out.parent)
    warnings.simplefilter("ignore")  # autograd's, about overflow in what it differentiates
    count = max(int(1000 * given.scale), 5)
    seeds = max(int(10 * given.scale), 1)
    results = {"networks": count, "seeds": seeds}
    begun = time.perf_counter()
    results["false alarms"] = len(alarms(count))
    unseen, unseen_by_oracle = misses(count)
    results["missed by differences"] = len(unseen)
    results["missed beside an oracle"] = len(unseen_by_oracle)
    results["stated errors missed"] = len(stated(max(count // 10, 3)))
    said = list(named(seeds))
    right = [one for one in said if one[1] in one[2]]
    vague = [one for one in said if one not in right and "no usual fault" in one[2]]
    wrong = [one for one in said if one not in right and one not in vague]
    results |= {"faults": len(said), "seen": sum(seen for *_, seen in said), "named": len(right)}
    results |= {"left open": len(vague), "named wrongly": len(wrong)}
    found = strangers([first.CASES, second.CASES])
    results |= {f"strangers' {name}": count for name, count in found.items()}
    results["small layer, ms"], results["784-500-10, s"] = (
        float(f"{t:.3g}") for t in speed(max(int(5 * given.scale), 1))
    )
    results["seconds"] = round(time.perf_counter() - begun)
    for name, value in results.items():
        print(f"{name:<26} {value:>10}")
    for case, words, sentence, _ in sorted(set(vague + wrong)):
        print(f"{case}: expected {words!r}, was told {sentence!r}")
    if given.out:
        write(given.out, results)
    bad = results["false alarms"] or unseen_by_oracle or len(unseen) > count / 100 or results["stated errors missed"]
    bad = bad or found["right that fail"] or found["wrong that pass"]
    bad = bad or wrong or len(right) < 0.9 * len(said) or results["seen"] < len(said)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
