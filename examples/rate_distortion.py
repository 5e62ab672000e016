"""What β buys: the rate of the latents against the distortion of the images, and how close that is to what can be had.

MNIST, grey pixels: 784-500-20, tanh, Glorot, Adam 0.001, M = 100, one million samples, for β from 0.1 to 10. Rate,
distortion, active latents and mutual information are those of the validation images. A line through a point with the
slope -1 has the points with its bound, -(rate + distortion).

Linear: 3,000 draws of a Gaussian in six dimensions, a linear VAE with as many latents, and a decoder whose variance is
fixed at σ² = 0.25. What can be had is known there, the rate-distortion function of a Gaussian: with the variances λ_i
of the training data along their principal axes, and a level θ, "reverse water-filling" gives

    R = Σ_i max(0, ½ ln(λ_i/θ)),   D = Σ_i min(λ_i, θ)        D is the mean squared error, summed over dimensions

(Cover & Thomas 2006, "Elements of Information Theory", chapter 10). The VAE minimises D/(2σ²) + β R, whose slope
belongs to θ = β σ². So each trained model has to lie on the curve at this θ, and beside it stands the model whose
parameters are set to the optimum in closed form. The distortion is that at draws of z, which have to be paid for.

Runs are kept in --runs and gone on with.
"""

import numpy as np
from scipy.optimize import brentq
from stages import write_table
from study import Run, command, in_parallel, parse, parser, positive, train_all

from scratchvae import VAE, Adam, fit, load_data, load_model, plots
from scratchvae.bench import commit
from scratchvae.inference.distributions import log_gaussian
from scratchvae.inference.information import information
from scratchvae.inference.likelihoods import LIKELIHOODS

BETAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
VARIANCE = 0.25  # σ² of the linear model's decoder
VARIANCES = (4.0, 2.0, 1.0, 0.5, 0.25, 0.1)  # of the distribution that its data come from
ROWS = 3000
DRAWS = 100  # of z for each row, for the distortion


def water_filling(variances, theta):
    """R in nats and D, the rate-distortion function of a Gaussian with these variances at the level θ."""
    return np.maximum(0, 0.5 * np.log(variances / theta)).sum(), np.minimum(variances, theta).sum()


def rate_of(variances, distortion):
    """R in nats at a distortion between 0 and the sum of the variances."""
    if distortion >= np.sum(variances):
        return 0.0
    level = brentq(lambda theta: np.minimum(variances, theta).sum() - distortion, 0, np.max(variances))
    return water_filling(variances, level)[0]


class Fixed(LIKELIHOODS["isotropic"]):
    """p(x|z) = N(μ, σ² I) with a σ² that is not learned."""

    name = "fixed"
    shared = {}  # noqa: RUF012  a constant

    def __init__(self):
        super().__init__("free")

    def log_prob(self, x, mu, gradient=True):
        log_p, dmu, _ = log_gaussian(x, mu, np.full_like(mu, np.log(VARIANCE), shape=()), gradient)
        return log_p, dmu

    def mean(self, mu):
        return mu

    def draw(self, eps, mu):
        return mu + VARIANCE**0.5 * eps


def linear_data():
    """The rows, their variances along the principal axes, largest first, these axes (D, D), and their mean."""
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.standard_normal((len(VARIANCES),) * 2))[0]
    x = generator.standard_normal((ROWS, len(VARIANCES))) * np.sqrt(VARIANCES) @ axes
    variances, axes = np.linalg.eigh(np.cov(x.T, bias=True))
    return x, variances[::-1], axes.T[::-1], x.mean(axis=0)


def linear_model(beta):
    """The linear VAE at its initial values."""
    D = len(VARIANCES)
    model = {"likelihood": Fixed(), "prior": False, "init": 0.1, "dtype": "float64", "seed": 1}
    return VAE(D, (), D, beta=beta, **model)


def optimum(beta):
    """The linear VAE at the optimum in closed form, axis by axis: x̂ ~ N(0, λ - θ), of which x is θ away.

    With z ~ N(0, 1), x̂ = √(λ - θ) z. Its posterior under that joint law is N(√(λ - θ) x/λ, θ/λ). An axis with λ ≤ θ is
    not used: its latent is the prior's.
    """
    _, variances, axes, mean = linear_data()
    theta = np.minimum(beta * VARIANCE, variances)
    root = np.sqrt(variances - theta)
    model = linear_model(beta)
    model.params.value[...] = 0
    arrays = model.params.named(model.params.value)
    arrays["decoder.mu.W"][...] = root[:, None] * axes
    arrays["decoder.mu.b"][...] = mean
    arrays["encoder.mu.W"][...] = (axes.T / variances) * root
    arrays["encoder.mu.b"][...] = -mean @ arrays["encoder.mu.W"]
    arrays["encoder.log_var.b"][...] = np.log(theta / variances)
    return model


def on_linear(beta, samples):
    """A row of the table: a linear model that was trained, beside the optimum and the curve."""
    x, variances, _, _ = linear_data()
    model = linear_model(beta)
    steps = samples / 100
    history = fit(model, x, optimizer=Adam(0.02, decay=steps / 20), samples=samples, progress=False)
    row = {"data": "linear", "beta": beta, "seed": 1, "samples": int(history["samples"][-1])}
    for name, one in (("", model), ("optimum ", optimum(beta))):
        use = information(one, x)
        z = one.encode_samples(x, DRAWS)
        x_hat = one.decode(z.reshape(-1, z.shape[-1])).reshape(*z.shape[:2], -1)
        row |= {f"{name}rate": use.rate, f"{name}distortion": ((x - x_hat) ** 2).sum(axis=-1).mean()}
        row |= {f"{name}active": use.active}
    rate, distortion = water_filling(variances, beta * VARIANCE)
    row |= {"curve rate": rate, "curve distortion": distortion}
    row["above the curve"] = row["rate"] - rate_of(variances, row["distortion"])
    row |= {"train_seconds": history["seconds"][-1], "commit": commit()}
    return {name: round(float(value), 4) if isinstance(value, float) else value for name, value in row.items()}


def run_of(settings, beta):
    """The Run of one β on images."""
    folder = settings.runs / f"rate-distortion-{settings.data}-{settings.scale:g}" / f"beta-{beta:g}"
    samples = max(2000, int(settings.samples * settings.scale))
    return Run(folder, settings.data, 500, 20, samples, {"init": "glorot", "beta": beta}, optimizer=Adam(0.001))


def on_images(run, beta):
    """A row of the table: a model of images that was trained."""
    use = information(load_model(run.folder), load_data(run.data).valid)
    last = run.history()[-1]
    return {
        "data": run.data,
        "beta": beta,
        "seed": run.seed,
        "samples": int(last["samples"]),
        "rate": round(float(last["rate"]), 3),
        "distortion": round(float(last["distortion"]), 3),
        "bound": round(float(last["valid_bound"]), 3),
        "active": use.active,
        "mutual information, at least": round(use.mutual_information, 3),
        "ln N": round(use.log_n, 3),
        "train_seconds": round(float(last["seconds"]), 1),
        "commit": run.commit(),
    }


def draw(settings, images, linear):
    """rate_distortion.png: images on the left, the linear model and the curve that it must touch on the right."""
    fig = plots.Figure(figsize=(11, 4.6), dpi=150, layout="constrained")
    left, right = fig.subplots(1, 2)
    points = [(row["distortion"], row["rate"]) for row in images]
    left.plot(*zip(*points, strict=True), "C0o-", ms=4, lw=1)
    for row in images:
        label = f"β = {row['beta']:g}, {row['active']} active"
        left.annotate(label, (row["distortion"], row["rate"]), (5, 3), textcoords="offset points", fontsize=7)
    best = max(images, key=lambda row: row["bound"])
    d = np.array(left.get_xlim())
    left.set_xlim(d[0], d[1] + 0.1 * np.ptp(d))  # with room for the labels
    left.plot(d, -best["bound"] - d, "0.6", ls=":", label=f"the bound of β = {best['beta']:g}: {best['bound']:.1f}")
    left.set_ylim(0, 1.15 * max(row["rate"] for row in images))
    left.set_title(f"{settings.data}, validation images: the point of each β")
    left.set_xlabel("distortion, -E log p(x|z) (nats)")
    left.set_ylabel("rate, E KL(q(z|x) ‖ p(z)) (nats)")
    left.legend(fontsize=8)

    variances = linear_data()[1]
    levels = np.geomspace(min(row["beta"] for row in linear) * VARIANCE / 2, variances.max(), 200)
    rate, distortion = zip(*(water_filling(variances, theta) for theta in levels), strict=True)
    right.plot(distortion, rate, "0.6", lw=2, label="the rate-distortion function")
    right.plot(*zip(*((row["distortion"], row["rate"]) for row in linear), strict=True), "C0o", ms=5, label="trained")
    best = [(row["optimum distortion"], row["optimum rate"]) for row in linear]
    right.plot(*zip(*best, strict=True), "C1x", ms=6, label="optimum in closed form")
    for row in linear:
        label = f"β = {row['beta']:g}, {row['active']} active"
        right.annotate(label, (row["distortion"], row["rate"]), (6, 4), textcoords="offset points", fontsize=7)
    right.set_title("linear model, Gaussian data: what can be had")
    right.set_xlabel("distortion, E ‖x - x̂‖² at draws of z")
    right.set_ylabel("rate (nats)")
    right.legend(fontsize=8)
    for ax in (left, right):
        ax.grid(alpha=0.3)
    fig.savefig(settings.results / "rate_distortion.png")


def main():
    """Train what is not trained yet, print the two tables, and write rate_distortion.csv and .png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set of images")
    p.add_argument("--samples", type=positive, default=1_000_000, help="samples to evaluate (1e6)")
    p.add_argument("--beta", type=float, nargs="+", default=BETAS, help="the weights of the KL (0.1 to 10)")
    settings = parse(p)
    runs = {beta: run_of(settings, beta) for beta in settings.beta}
    train_all(list(runs.values()), settings.jobs)
    images = [on_images(run, beta) for beta, run in runs.items()]
    for row in images:
        print(
            f"β = {row['beta']:4g}: rate {row['rate']:6.2f}, distortion {row['distortion']:6.2f}, bound "
            f"{row['bound']:7.2f}, {row['active']} latents active, I(x; z) at least "
            f"{row['mutual information, at least']:.2f}"
        )
    samples = max(20_000, int(2 * settings.samples * settings.scale))
    linear = in_parallel([(on_linear, beta, samples) for beta in settings.beta], settings.jobs)
    for row in linear:
        print(
            f"β = {row['beta']:4g}: rate {row['rate']:.3f}, distortion {row['distortion']:.3f}, expected "
            f"{row['curve rate']:.3f} and {row['curve distortion']:.3f}; {row['above the curve']:+.4f} nats above"
        )
    names = dict.fromkeys(name for row in images + linear for name in row)
    write_table(
        settings.results / "rate_distortion.csv",
        [{name: row.get(name, "") for name in names} for row in images + linear],
    )
    draw(settings, images, linear)
    print(f"wrote {settings.results / 'rate_distortion.png'}")


if __name__ == "__main__":
    command(main)
