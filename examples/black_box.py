"""The score-function gradient and what lowers its variance, against reparameterisation, on two problems.

    logistic regression   scikit-learn's breast cancer (569 x 30, standardised, and an intercept), θ ~ N(0, I), q(θ) a
                          mean field; of θ_j the Markov blanket is the whole likelihood and its own prior; all of the
                          data at each step, from q = N(0, I); the bound of the data set
    VAE                   64-50-5-50-64 on 1,400 digits, tanh, Glorot, MAP, M = 100; the bound of the 180 validation
                          images, nats per image; given z, θ's gradient is the same for all methods

Eight draws a gradient for every method, and 2,000 steps of Adam. "variance" is of that gradient, of (μ, log σ²) or of φ
per image of one minibatch, summed over its components, over 1,000 draws of the noise: where training begins, and where
reparameterisation ends. Each method has the stepsize of a grid, two a decade, with which three seeds end highest on
average, an end being the mean of the last tenth of a curve. The milliseconds are those of a busy machine.
"""

import time
from functools import partial
from types import SimpleNamespace

import numpy as np
from sklearn.datasets import load_breast_cancer
from stages import write_table
from study import command, in_parallel, parse, parser, positive

from scratchvae import VAE, Adam, evaluate, fit, load_data, plots
from scratchvae.bench import commit
from scratchvae.inference.distributions import LOG_2PI
from scratchvae.inference.objectives.black_box import black_box
from scratchvae.inference.score_function import path_gradient, score_gradient
from scratchvae.models.regression import LogisticRegression

PATH = "reparameterisation"
METHODS = {  # rao_blackwell, control_variate
    "naive": (False, False),
    "control variate": (False, True),
    "Rao-Blackwell": (True, False),
    "both": (True, True),
    PATH: None,
}
L = 8  # draws a gradient


def interval(steps):
    """How many steps between two points of a curve."""
    return max(10, steps // 40)


class Regression:
    """Bayesian logistic regression, its q(θ) one vector (μ, log σ²)."""

    name, unit, stepsizes = "logistic regression", "nats", [0.003, 0.01, 0.03, 0.1, 0.3]

    def __init__(self):
        x, y = load_breast_cancer(return_X_y=True)
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        self.model = LogisticRegression(np.hstack([x, np.ones((len(x), 1))]), y)

    def start(self, seed):
        return np.zeros(2 * self.model.n_parameters)

    def log_p(self, theta, rao_blackwell):
        """log p(y|θ) + log p(θ), (S,); or with log p(θ_j) alone, for each factor, (S, P)."""
        log_likelihood = self.model.log_likelihood(theta, gradient=False)[0]
        log_prior = self.model.log_prior(theta.reshape(-1, 1), gradient=False)[0].reshape(theta.shape)
        return log_likelihood[:, None] + log_prior if rao_blackwell else log_likelihood + log_prior.sum(axis=1)

    def dlog_p(self, theta):
        return self.model.log_likelihood(theta)[1] + self.model.log_prior(theta)[1]

    def gradient(self, phi, method, generator):
        """∂bound/∂(μ, log σ²) from L draws."""
        mu, log_var = np.split(phi, 2)
        eps = generator.standard_normal((L, len(mu)))
        if method == PATH:
            return np.concatenate(path_gradient(self.dlog_p, mu, log_var, eps))
        rao_blackwell, control_variate = METHODS[method]
        log_p = partial(self.log_p, rao_blackwell=rao_blackwell)
        return np.concatenate(score_gradient(log_p, mu, log_var, eps, control_variate))

    def bound(self, phi):
        """E_q log p(y, θ) from 1,000 draws, always the same, and q's entropy in closed form."""
        mu, log_var = np.split(phi, 2)
        eps = np.random.default_rng(1).standard_normal((1000, len(mu)))
        theta = mu + np.exp(0.5 * log_var) * eps
        return self.log_p(theta, rao_blackwell=False).mean() + 0.5 * (1 + LOG_2PI + log_var).sum()

    def train(self, method, stepsize, seed, steps):
        """(where it ends, the steps of the curve, the bound there)."""
        params = SimpleNamespace(value=self.start(seed), grad=np.zeros_like(self.start(seed)))
        optimizer, curve = Adam(stepsize), [(0, self.bound(params.value))]
        optimizer.start(params)
        for t in range(1, steps + 1):
            params.grad[...] = self.gradient(params.value, method, np.random.default_rng([seed, t]))
            optimizer.ascend(params, t)
            if t % interval(steps) == 0:
                curve.append((t, self.bound(params.value)))
        return params.value, *np.array(curve).T


class Autoencoder:
    """A VAE of digits, by the values of all its parameters."""

    name, unit, stepsizes = "VAE", "nats per image", [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03]

    def __init__(self):
        self.data = load_data("digits", n_train=1400)  # minibatches of 100, none of them short

    def model(self, method, seed=0):
        estimator = "A"
        if method != PATH:
            rao_blackwell, control_variate = METHODS[method]
            estimator = partial(black_box, rao_blackwell=rao_blackwell, control_variate=control_variate)
        return VAE(64, 50, 5, init="glorot", estimator=estimator, n_samples=L, seed=seed)

    def start(self, seed):
        return self.model(PATH, seed).params.value

    def gradient(self, point, method, generator):
        """∂bound/∂φ at the first 100 images, per image."""
        model = self.model(method)
        model.params.value[...] = point
        model.bound(self.data.train[:100], model.noise(generator, 100), 1, gradient=True)
        return model.params.grad[model.phi].astype(float)

    def train(self, method, stepsize, seed, steps):
        """(where it ends, the steps of the curve, the bound there)."""
        model = self.model(method, seed)
        start = evaluate(model, self.data.valid, seed)["bound"]
        settings = {"samples": 100 * steps, "log_every": 100 * interval(steps), "seed": seed, "progress": False}
        try:
            history = fit(model, self.data.train, self.data.valid, optimizer=Adam(stepsize), **settings)
        except FloatingPointError:  # the stepsize is too large for this method
            return model.params.value, np.zeros(1), np.full(1, -np.inf)
        return model.params.value, np.append(0, history["step"]), np.append(start, history["valid_bound"])


def variance(problem, method, point, draws):
    """(variance of the gradient, summed over its components; milliseconds a gradient)."""
    begun = time.perf_counter()
    gradients = [problem.gradient(point, method, np.random.default_rng([2, k])) for k in range(draws)]
    return np.var(gradients, axis=0, ddof=1).sum(), 1e3 * (time.perf_counter() - begun) / draws


def end(bounds):
    """The mean of the last tenth of a curve, -inf if it is not finite."""
    mean = bounds[-max(1, len(bounds) // 10) :].mean()
    return mean if np.isfinite(mean) else -np.inf


def study(problem, settings):
    """For each method the row of the table and [(steps, bounds) of each seed]."""
    steps, draws = max(20, int(2000 * settings.scale)), max(10, int(1000 * settings.scale))
    keys = [(m, stepsize, seed) for m in METHODS for stepsize in problem.stepsizes for seed in range(settings.seeds)]
    calls = [(problem.train, *key, steps) for key in keys]
    found = dict(zip(keys, in_parallel(calls, settings.jobs), strict=True))

    def ends(method, stepsize):
        return [end(found[method, stepsize, seed][2]) for seed in range(settings.seeds)]

    best = {m: max(problem.stepsizes, key=lambda stepsize, m=m: np.mean(ends(m, stepsize))) for m in METHODS}
    points = problem.start(0), found[PATH, best[PATH], 0][0]
    calls = [(variance, problem, m, point, draws) for m in METHODS for point in points]
    spreads = iter(in_parallel(calls, settings.jobs, " variances"))
    early = max(1, steps // 10 // interval(steps))
    for method in METHODS:
        curves = [found[method, best[method], seed][1:] for seed in range(settings.seeds)]
        last = ends(method, best[method])
        (initial, _), (trained, milliseconds) = next(spreads), next(spreads)
        row = {
            "problem": problem.name,
            "method": method,
            "variance at the start": f"{initial:.3g}",
            "variance where trained": f"{trained:.3g}",
            "ms a gradient": f"{milliseconds:.2f}",
            "stepsize": best[method],
            f"bound after {early * interval(steps)} steps": round(float(np.mean([b[early] for _, b in curves])), 2),
            f"bound after {steps} steps": round(float(np.mean(last)), 2),
            "lowest of the seeds": round(float(min(last)), 2),
            "highest": round(float(max(last)), 2),
            "seeds": settings.seeds,
            "draws a gradient": L,
            "gradients": draws,
            "commit": commit(),
        }
        yield row, curves


def main():
    """Write black_box.csv, a row for each problem and method, and black_box.png."""
    p = parser(__doc__)
    p.add_argument("--seeds", type=positive, default=3, help="seeds 0, 1, … (3)")
    settings = parse(p)
    studied = [(problem, *zip(*study(problem, settings), strict=True)) for problem in (Regression(), Autoencoder())]
    write_table(settings.results / "black_box.csv", [row for _, rows, _ in studied for row in rows])
    fig = plots.Figure(figsize=(12, 7.2), dpi=150, layout="constrained")
    for (left, right), (problem, rows, curves) in zip(fig.subplots(2, 2), studied, strict=True):
        for k, (row, runs) in enumerate(zip(rows, curves, strict=True)):
            for column, style in [("variance at the start", {"mfc": "none"}), ("variance where trained", {})]:
                left.plot(k, float(row[column]), f"C{k}o", ms=8, **style)
            bounds = np.array([b for _, b in runs])
            right.plot(runs[0][0], bounds.mean(axis=0), f"C{k}", label=f"{row['method']}, {row['stepsize']:g}")
            right.fill_between(runs[0][0], bounds.min(axis=0), bounds.max(axis=0), color=f"C{k}", alpha=0.2)
            print(f"{problem.name:20}", *(f"{name}: {row[name]}  " for name in list(row)[1:8]))
        left.set_yscale("log")
        left.set_xticks(range(len(rows)), [row["method"].replace(" ", "\n") for row in rows], fontsize=7)
        left.set_title(f"{problem.name}: variance of the gradient\n(open: at the start, full: trained)", fontsize=9)
        right.set_xlabel("steps of Adam")
        right.set_title(f"bound, {problem.unit}: mean and range of the seeds", fontsize=9)
        right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), title="stepsize", title_fontsize=8)
        ends = [end(b) for runs in curves for _, b in runs]
        low, high = min(ends) - 0.5 * np.ptp(ends), max(ends)
        right.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        for ax in (left, right):
            ax.grid(alpha=0.3)
    fig.savefig(settings.results / "black_box.png")
    print(f"wrote {settings.results / 'black_box.png'}")


if __name__ == "__main__":
    command(main)
