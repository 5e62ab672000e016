"""Planar flows of 2, 8 and 32 maps fitted to the four test energies of Rezende & Mohamed 2015 (table 1, figure 3).

p(z) = exp(-U(z)) / Z in two dimensions. The flow starts from N(μ, σ² I); μ, log σ² and the maps' parameters are learned
by Adam 0.01 / (1 + step/2000), 300 draws a step, from the gradient of E[-β U(z_K) + Σ log det - log q_0(z_0)], where β
grows to 1 over the first half. Energies 2 to 4 repeat for ever along z_1: a wall is added to them beyond |z_1| = 4.
"kl" is KL(q_K ‖ p) = log Z - bound in nats, log Z by a sum over a grid; drawn is the best of --seeds by the bound.
"""

import math
from types import SimpleNamespace

import numpy as np
from stages import write_table
from study import command, in_parallel, parse, parser, positive

from scratchvae import Adam, plots
from scratchvae.bench import commit
from scratchvae.inference.distributions import log_gaussian
from scratchvae.inference.posteriors.flow import Planar
from scratchvae.nets.layers import sigmoid
from scratchvae.nets.params import Params
from scratchvae.training.loop import stream


def ring(z):
    """Two halves of a ring: U = ½ ((‖z‖ - 2)/0.4)² - log(e^-½((z_1 - 2)/0.6)² + e^-½((z_1 + 2)/0.6)²)."""
    r, x = np.hypot(z[:, 0], z[:, 1]), z[:, 0]
    log_two, (da, db) = _log_sum(-0.5 * ((x - 2) / 0.6) ** 2, -0.5 * ((x + 2) / 0.6) ** 2)
    dr = -(r - 2) / 0.16 / np.maximum(r, 1e-12)
    dz = dr[:, None] * z
    dz[:, 0] -= (da * (x - 2) + db * (x + 2)) / 0.36
    return -0.5 * ((r - 2) / 0.4) ** 2 + log_two, dz


def wave(z):
    """A sine: U = ½ ((z_2 - w_1)/0.4)², w_1 = sin(2π z_1/4)."""
    w, dw = _wave(z[:, 0])
    d = (z[:, 1] - w) / 0.16
    return _walled(z, -0.5 * d * (z[:, 1] - w), np.stack([d * dw, -d], axis=1))


def split(z):
    """A sine that divides: U = -log(e^-½((z_2 - w_1)/0.35)² + e^-½((z_2 - w_1 + w_2)/0.35)²), w_2 a bump at z_1 = 1."""
    bump = 3 * np.exp(-0.5 * ((z[:, 0] - 1) / 0.6) ** 2)
    return _two_branches(z, bump, -bump * (z[:, 0] - 1) / 0.36, 0.35)


def fork(z):
    """A sine with a second branch from z_1 = 1 on: as `split`, widths 0.4 and 0.35, and w_3 = 3 σ((z_1 - 1)/0.3)."""
    step = sigmoid((z[:, 0] - 1) / 0.3)
    return _two_branches(z, 3 * step, 3 * step * (1 - step) / 0.3, 0.4)


ENERGIES = {"1": ring, "2": wave, "3": split, "4": fork}


def _wave(x):
    return np.sin(math.pi / 2 * x), math.pi / 2 * np.cos(math.pi / 2 * x)


def _two_branches(z, shift, dshift, width):
    w, dw = _wave(z[:, 0])
    one, other = z[:, 1] - w, z[:, 1] - w + shift
    log_p, (da, db) = _log_sum(-0.5 * (one / width) ** 2, -0.5 * (other / 0.35) ** 2)
    d_one, d_other = -da * one / width**2, -db * other / 0.35**2
    return _walled(z, log_p, np.stack([-(d_one + d_other) * dw + d_other * dshift, d_one + d_other], axis=1))


def _walled(z, log_p, dz):
    beyond = np.maximum(np.abs(z[:, 0]) - 4, 0)
    dz[:, 0] -= beyond * np.sign(z[:, 0]) / 0.04
    return log_p - 0.5 * (beyond / 0.2) ** 2, dz


def _log_sum(a, b):
    """log(eᵃ + eᵇ), with ∂/∂a and ∂/∂b."""
    share = sigmoid(a - b)
    return np.maximum(a, b) + np.log1p(np.exp(-np.abs(a - b))), (share, 1 - share)


def fit_flow(energy, n_maps, steps, seed, draws=300):
    """The flow, (μ, log σ²) and its parameters, fitted to exp(-U): (Planar, q_0 (2, 2), parameters (1, 5 K))."""
    flow, log_p = Planar(n_maps, 2), ENERGIES[energy]
    layers = [
        SimpleNamespace(name="q0", shapes={"v": (2, 2)}),
        SimpleNamespace(name="maps", shapes={"v": (1, 5 * n_maps)}),
    ]
    params = Params(layers, np.float64)
    (q0, maps), (dq0, dmaps) = ([layer.v for layer in layers], [layer.dv for layer in layers])
    maps[...] = stream(seed, 0, 0).standard_normal(maps.shape)
    flow.u_of(maps)[...] = 0  # begin at the identity
    optimizer = Adam(0.01, decay=2000)
    optimizer.start(params)
    for step in range(1, steps + 1):
        eps = stream(seed, 1, step).standard_normal((draws, 2))
        z, _ = flow.forward((q0[0] + np.exp(0.5 * q0[1]) * eps)[None], maps)
        beta = min(1, 0.01 + 2 * step / steps)
        dz0, dmaps[...] = flow.backward(beta * log_p(z[0])[1][None] / draws, 1 / draws)
        dq0[0] = dz0[0].sum(axis=0)
        dq0[1] = 0.5 * ((dz0[0] * eps).sum(axis=0) * np.exp(0.5 * q0[1]) + 1)  # via z_0, and ½ of -log q_0
        optimizer.ascend(params, step)
    return flow, q0, maps


def draw(flow, q0, maps, n, seed):
    """z_K (n, 2) and log q_K(z_K)."""
    z0 = q0[0] + np.exp(0.5 * q0[1]) * stream(seed, 2, 0).standard_normal((n, 2))
    z, log_det = flow.forward(z0[None], maps)
    return z[0], log_gaussian(z0, *q0, gradient=False)[0] - log_det[0]


def result(energy, n_maps, steps, seed, version):
    """(row of the table, 1,000,000 draws as a histogram)."""
    fitted = fit_flow(energy, n_maps, steps, seed)
    parts = [draw(*fitted, 100_000, k) for k in range(10)]
    z, log_q = (np.concatenate(part) for part in zip(*parts, strict=True))
    bound = ENERGIES[energy](z)[0] - log_q
    kl = log_z(energy) - bound.mean()
    row = {"energy": energy, "maps": n_maps, "kl": round(float(kl), 4)}
    row |= {"kl_error": round(float(bound.std() / len(z) ** 0.5), 4), "steps": steps, "seed": seed, "commit": version}
    return row, np.histogram2d(z[:, 1], z[:, 0], bins=200, range=[[-4, 4], [-4.5, 4.5]])[0]


def grid(points=1000):
    """(points², 2) from -5.5 to 5.5, row by row."""
    axis = np.linspace(-5.5, 5.5, points)
    return axis, np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def log_z(energy):
    """log ∫ exp(-U), by a sum over the grid."""
    axis, z = grid()
    return math.log(np.exp(ENERGIES[energy](z)[0]).sum() * (axis[1] - axis[0]) ** 2)


def main():
    """Fit what is asked for; write energies.csv and energies.png."""
    p = parser(__doc__)
    p.add_argument("--maps", type=positive, nargs="+", default=[2, 8, 32], help="K (2 8 32)")
    p.add_argument("--steps", type=positive, default=10_000, help="steps of Adam (10,000)")
    p.add_argument("--seeds", type=positive, default=2, help="seeds 0, 1, …: the best is drawn (2)")
    settings = parse(p)
    steps, version = max(50, int(settings.steps * settings.scale)), commit()
    cells = [(e, k, s) for e in ENERGIES for k in settings.maps for s in range(settings.seeds)]
    found = in_parallel([(result, e, k, steps, s, version) for e, k, s in cells], settings.jobs, " flows")
    write_table(settings.results / "energies.csv", [row for row, _ in found])

    fig = plots.Figure(figsize=(2.6 * (1 + len(settings.maps)), 9.6), dpi=130, layout="constrained")
    for axes, energy in zip(fig.subplots(4, 1 + len(settings.maps)), ENERGIES, strict=True):
        _, z = grid(400)
        axes[0].imshow(np.exp(ENERGIES[energy](z)[0]).reshape(400, 400), extent=[-5.5, 5.5, -5.5, 5.5], origin="lower")
        axes[0].set_title(f"energy {energy}")
        for ax, k in zip(axes[1:], settings.maps, strict=True):
            mine = [pair for pair in found if (pair[0]["energy"], pair[0]["maps"]) == (energy, k)]
            row, counts = min(mine, key=lambda pair: pair[0]["kl"])
            ax.imshow(counts, extent=[-4.5, 4.5, -4, 4], origin="lower")
            ax.set_title(f"K = {k}: KL {row['kl']:.2g}")
        for ax in axes:
            ax.set(xlim=(-4.5, 4.5), ylim=(-4, 4), xticks=[], yticks=[])
    fig.savefig(settings.results / "energies.png")
    print(f"wrote {settings.results / 'energies.png'}")


if __name__ == "__main__":
    command(main)
