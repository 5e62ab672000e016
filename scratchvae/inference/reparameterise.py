"""Reparameterisations (section 2.4): z = g(ε, φ), where ε ~ p(ε) knows nothing of φ, and the density q(z; φ).

    1  tractable inverse CDF, z = F⁻¹(u), u ~ U(0, 1)    exponential, weibull; s of laplace, logistic, gumbel, cauchy
    2  location-scale, z = a + eᵇ s, s standard          these four, gaussian, student_t
    3  composition of the others                         log_normal = exp(Gaussian); s of student_t = ε/√(χ²/ν)

All have one face, elementwise, so that every coordinate has parameters of its own; φ (K, …) holds one row for each of
the K names in `parameters`, logarithms where they must be positive, and broadcasts against ε:

    noise(generator, shape)    ε ~ p(ε)
    draw(eps, phi)             z = g(ε, φ) and ∂z/∂φ (K, …)
    log_density(z, phi)        log q(z; φ) in nats, ∂/∂z and ∂/∂φ (K, …), each with the other held

The pathwise gradient of E f(z) is the mean of f'(z) ∂z/∂φ. That of log q(z; φ) at z = g(ε, φ) has both parts,
∂/∂z · ∂z/∂φ + ∂/∂φ.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from scratchvae.inference.distributions import LOG_2PI

LOG_2 = math.log(2)


def uniform(generator, shape):
    """u ~ U(0, 1), neither 0 nor 1: the centres of 2⁵² cells."""
    return (generator.integers(1 << 52, size=shape) + 0.5) * 2.0**-52


@dataclass(frozen=True)
class LocationScale:
    """z = a + eᵇ s: the standard s by its noise ε, by s(ε), and by log f(s) with d log f/ds."""

    name: str
    noise: Callable
    standard: Callable
    log_standard: Callable
    parameters = ("location", "log_scale")

    def draw(self, eps, phi):
        """z = a + eᵇ s(ε), with ∂z/∂a = 1 and ∂z/∂b = eᵇ s."""
        a, b = phi
        d = np.exp(b) * self.standard(eps)
        return a + d, np.stack([np.ones_like(d), d])

    def log_density(self, z, phi):
        """log q(z) = log f(s) - b at s = (z - a) e⁻ᵇ, since ds/dz = e⁻ᵇ."""
        a, b = phi
        s = (z - a) * np.exp(-b)
        log_f, df = self.log_standard(s)
        dz = df * np.exp(-b)
        return log_f - b, dz, np.stack([-dz, -df * s - 1])  # ∂s/∂a = -e⁻ᵇ     ∂s/∂b = -s, and -1 of -b


class Exponential:
    """q(z) = e⁻ᵇ exp(-z e⁻ᵇ), z > 0, of mean eᵇ."""

    name = "exponential"
    parameters = ("log_scale",)
    noise = staticmethod(uniform)

    def draw(self, u, phi):
        """z = -eᵇ log u: F(z) = 1 - u, as uniform as u. ∂z/∂b = z."""
        (b,) = phi
        z = -np.exp(b) * np.log(u)
        return z, z[None]

    def log_density(self, z, phi):
        """log q(z) = -b - z e⁻ᵇ."""
        (b,) = phi
        rate = np.exp(-b)
        return -b - z * rate, -rate * np.ones_like(z), (z * rate - 1)[None]


class Weibull:
    """q(z) = k/λ (z/λ)ᵏ⁻¹ exp(-(z/λ)ᵏ), z > 0, scale λ = eᵇ, shape k = eᶜ."""

    name = "weibull"
    parameters = ("log_scale", "log_shape")
    noise = staticmethod(uniform)

    def draw(self, u, phi):
        """z = λ (-log u)^(1/k): log z = b + w/k, w = log(-log u). ∂z/∂b = z, ∂z/∂c = -z w/k."""
        b, c = phi
        w_k = np.log(-np.log(u)) * np.exp(-c)
        z = np.exp(b + w_k)
        return z, np.stack([z, -z * w_k])

    def log_density(self, z, phi):
        """log q(z) = c - log z + r - eʳ, where r = k (log z - b) = log (z/λ)ᵏ."""
        b, c = phi
        k, log_z = np.exp(c), np.log(z)
        r = k * (log_z - b)
        dr = 1 - np.exp(r)  # of r - eʳ
        return c - log_z + r - np.exp(r), (k * dr - 1) / z, np.stack([-k * dr, 1 + r * dr])  # ∂r/∂b = -k  ∂r/∂c = r


@dataclass(frozen=True)
class Exp:
    """z = e^y, z > 0, composed with any y = g(ε, φ) from here."""

    name: str
    of: object

    @property
    def parameters(self):
        """Those of y."""
        return self.of.parameters

    def noise(self, generator, shape):
        """That of y."""
        return self.of.noise(generator, shape)

    def draw(self, eps, phi):
        """z = e^y, ∂z/∂φ = z ∂y/∂φ."""
        y, dy = self.of.draw(eps, phi)
        z = np.exp(y)
        return z, z * dy

    def log_density(self, z, phi):
        """log q(z) = log q_y(log z) - log z, since dy/dz = 1/z."""
        y = np.log(z)
        log_q, dy, dphi = self.of.log_density(y, phi)
        return log_q - y, (dy - 1) / z, dphi


# Standard draws by inverse CDF. v = min(u, 1 - u), the nearer tail, is exact, so that no draw loses digits in it.


def _two_sided(quantile, u):
    return np.sign(u - 0.5) * quantile(np.minimum(u, 1 - u))  # of a density with f(-s) = f(s)


def standard_laplace(u):
    """s = ∓log 2v."""
    return _two_sided(lambda v: -np.log(2 * v), u)


def standard_logistic(u):
    """s = log u/(1 - u)."""
    return np.log(u) - np.log1p(-u)


def standard_gumbel(u):
    """s = -log(-log u)."""
    return -np.log(-np.log(u))


def standard_cauchy(u):
    """s = tan π(u - ½) = ∓1/tan πv."""
    return _two_sided(lambda v: 1 / np.tan(np.pi * v), u)


def log_standard_laplace(s):
    """-|s| - log 2, with d/ds = -sign s."""
    return -np.abs(s) - LOG_2, -np.sign(s)


def log_standard_logistic(s):
    """log σ(s) σ(-s) = -|s| - 2 log(1 + e^-|s|), with d/ds = 1 - 2σ(s) = -tanh s/2."""
    t = np.abs(s)
    return -t - 2 * np.log1p(np.exp(-t)), -np.tanh(0.5 * s)


def log_standard_gumbel(s):
    """-s - e⁻ˢ, with d/ds = e⁻ˢ - 1."""
    r = np.exp(-s)
    return -s - r, r - 1


def log_standard_normal(s):
    """-½ (log 2π + s²), with d/ds = -s."""
    return -0.5 * (LOG_2PI + s * s), -s


def log_standard_student(s, nu):
    """log Γ((ν+1)/2) / (Γ(ν/2) √(νπ)) - (ν+1)/2 log(1 + s²/ν), with d/ds = -(ν+1) s/(ν + s²); ν = 1 is Cauchy's."""
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi)
    t = s / math.sqrt(nu)
    h = np.hypot(1, t)  # √(1 + s²/ν), and s² does not overflow
    return constant - (nu + 1) * np.log(h), -(nu + 1) / math.sqrt(nu) * (t / h) / h


def _normal(generator, shape):
    return generator.standard_normal(shape)


def _itself(eps):
    return eps


def _normal_and_chi_square(generator, shape, nu):
    return np.stack([generator.standard_normal(shape), generator.chisquare(nu, shape)])


def _ratio(eps, nu):
    return eps[0] / np.sqrt(eps[1] / nu)


gaussian = LocationScale("gaussian", _normal, _itself, log_standard_normal)
laplace = LocationScale("laplace", uniform, standard_laplace, log_standard_laplace)
logistic = LocationScale("logistic", uniform, standard_logistic, log_standard_logistic)
gumbel = LocationScale("gumbel", uniform, standard_gumbel, log_standard_gumbel)
cauchy = LocationScale("cauchy", uniform, standard_cauchy, partial(log_standard_student, nu=1))
exponential, weibull, log_normal = Exponential(), Weibull(), Exp("log-normal", gaussian)


def student_t(nu):
    """Student's t with ν degrees of freedom, which are fixed: s = ε/√(χ²/ν), the noise (2, …) being ε and χ² of ν."""
    if not (isinstance(nu, int | float | np.number) and 0 < nu < math.inf):
        raise ValueError(f"nu is {nu!r}; expected degrees of freedom > 0")
    return LocationScale(
        f"student_t({nu:g})",
        partial(_normal_and_chi_square, nu=nu),
        partial(_ratio, nu=nu),
        partial(log_standard_student, nu=nu),
    )
