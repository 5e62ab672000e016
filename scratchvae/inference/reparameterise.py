"""Reparameterisations z = g(ε, φ), where ε ~ p(ε) does not depend on φ, and the densities q(z; φ) of what they draw.

They are the three kinds of section 2.4 of Kingma & Welling, "Auto-Encoding Variational Bayes" (2014):

    1  tractable inverse CDF, z = F⁻¹(u), u ~ U(0, 1)    exponential, weibull; s of laplace, logistic, gumbel, cauchy
    2  location-scale, z = a + eᵇ s, s standard          these four, gaussian, student_t
    3  composition of the others                         log_normal = exp(Gaussian); s of student_t = ε/√(χ²/ν)

Every law works elementwise, so that each coordinate has parameters of its own. φ (K, …) has one row for each of the K
names in the law's `parameters`; a parameter that must be positive is given by its logarithm. The rows broadcast against
ε and z. All laws offer the same three functions:

    noise(generator, shape)    draws ε ~ p(ε) with NumPy's generator
    draw(eps, phi)             returns z = g(ε, φ) and ∂z/∂φ (K, …)
    log_density(z, phi)        returns log q(z; φ) in nats, ∂/∂z with φ held, and ∂/∂φ (K, …) with z held

The pathwise gradient of E f(z) is the mean of f'(z) ∂z/∂φ. The gradient of log q(z; φ) at z = g(ε, φ) has two parts,
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
    """Draw u ~ U(0, 1) of `shape`, each the centre of one of 2⁵² equal cells, so that none is 0 or 1."""
    return (generator.integers(1 << 52, size=shape) + 0.5) * 2.0**-52


@dataclass(frozen=True)
class LocationScale:
    """The law of z = a + eᵇ s, where s has a standard law (section 2.4, the second kind).

    name           names the law in messages.
    noise          is a function (generator, shape) that draws ε.
    standard       is a function that turns ε into s.
    log_standard   is a function that returns log f(s), the log density of s, and d log f/ds.
    """

    name: str
    noise: Callable
    standard: Callable
    log_standard: Callable
    parameters = ("location", "log_scale")

    def draw(self, eps, phi):
        """Return z = a + eᵇ s(ε), with ∂z/∂a = 1 and ∂z/∂b = eᵇ s."""
        a, b = phi
        d = np.exp(b) * self.standard(eps)
        return a + d, np.stack([np.ones_like(d), d])

    def log_density(self, z, phi):
        """Return log q(z) = log f(s) - b at s = (z - a) e⁻ᵇ, since ds/dz = e⁻ᵇ, and its partials."""
        a, b = phi
        s = (z - a) * np.exp(-b)
        log_f, df = self.log_standard(s)
        dz = df * np.exp(-b)
        return log_f - b, dz, np.stack([-dz, -df * s - 1])  # ∂s/∂a = -e⁻ᵇ     ∂s/∂b = -s, and ∂(-b)/∂b = -1


class Exponential:
    """The law with density q(z) = e⁻ᵇ exp(-z e⁻ᵇ) for z > 0, whose mean is eᵇ."""

    name = "exponential"
    parameters = ("log_scale",)
    noise = staticmethod(uniform)

    def draw(self, u, phi):
        """Return z = -eᵇ log u, with ∂z/∂b = z. Here F(z) = 1 - u, which is as uniform as u."""
        (b,) = phi
        z = -np.exp(b) * np.log(u)
        return z, z[None]

    def log_density(self, z, phi):
        """Return log q(z) = -b - z e⁻ᵇ and its partials."""
        (b,) = phi
        rate = np.exp(-b)
        return -b - z * rate, -rate * np.ones_like(z), (z * rate - 1)[None]  # ∂/∂z = -e⁻ᵇ     ∂/∂b = z e⁻ᵇ - 1


class Weibull:
    """The law with density q(z) = k/λ (z/λ)ᵏ⁻¹ exp(-(z/λ)ᵏ) for z > 0, with scale λ = eᵇ and shape k = eᶜ."""

    name = "weibull"
    parameters = ("log_scale", "log_shape")
    noise = staticmethod(uniform)

    def draw(self, u, phi):
        """Return z = λ (-log u)^(1/k), that is log z = b + w/k with w = log(-log u). ∂z/∂b = z and ∂z/∂c = -z w/k."""
        b, c = phi
        w_k = np.log(-np.log(u)) * np.exp(-c)
        z = np.exp(b + w_k)
        return z, np.stack([z, -z * w_k])

    def log_density(self, z, phi):
        """Return log q(z) = c - log z + r - eʳ and its partials, where r = k (log z - b) = log (z/λ)ᵏ."""
        b, c = phi
        k = np.exp(c)
        log_z = np.log(z)
        r = k * (log_z - b)
        dr = 1 - np.exp(r)  # d(r - eʳ)/dr
        dphi = np.stack([-k * dr, 1 + r * dr])  # ∂r/∂b = -k     ∂r/∂c = r
        return c - log_z + r - np.exp(r), (k * dr - 1) / z, dphi  # ∂r/∂z = k/z


class Exp:
    """The law of z = e^y > 0, where y = g(ε, φ) has the law `of` (section 2.4, the third kind).

    Noise and parameters are those of y. name names the law in messages.
    """

    def __init__(self, name, of):
        self.name = name
        self.of = of
        self.noise = of.noise
        self.parameters = of.parameters

    def draw(self, eps, phi):
        """Return z = e^y, with ∂z/∂φ = z ∂y/∂φ."""
        y, dy = self.of.draw(eps, phi)
        z = np.exp(y)
        return z, z * dy

    def log_density(self, z, phi):
        """Return log q(z) = log q_y(log z) - log z, since dy/dz = 1/z, and its partials."""
        y = np.log(z)
        log_q, dy, dphi = self.of.log_density(y, phi)
        return log_q - y, (dy - 1) / z, dphi  # ∂y/∂z = 1/z, and ∂(-log z)/∂z = -1/z


# Standard draws by inverse CDF. The nearer tail v = min(u, 1 - u) is exact, so no draw loses digits there.


def standard_laplace(u):
    """Return s = ∓log 2v for u in (0, 1), where v = min(u, 1 - u)."""
    return -np.sign(u - 0.5) * np.log(2 * np.minimum(u, 1 - u))


def standard_logistic(u):
    """Return s = log u/(1 - u) for u in (0, 1)."""
    return np.log(u) - np.log1p(-u)


def standard_gumbel(u):
    """Return s = -log(-log u) for u in (0, 1)."""
    return -np.log(-np.log(u))


def standard_cauchy(u):
    """Return s = tan π(u - ½) = ∓1/tan πv for u in (0, 1), where v = min(u, 1 - u)."""
    return np.sign(u - 0.5) / np.tan(np.pi * np.minimum(u, 1 - u))


# The log densities of standard draws, each with its derivative.


def log_standard_laplace(s):
    """Return log f(s) = -|s| - log 2, with d/ds = -sign s."""
    return -np.abs(s) - LOG_2, -np.sign(s)


def log_standard_logistic(s):
    """Return log f(s) = log σ(s) σ(-s) = -|s| - 2 log(1 + e^-|s|), with d/ds = 1 - 2σ(s) = -tanh s/2."""
    t = np.abs(s)
    return -t - 2 * np.log1p(np.exp(-t)), -np.tanh(0.5 * s)


def log_standard_gumbel(s):
    """Return log f(s) = -s - e⁻ˢ, with d/ds = e⁻ˢ - 1."""
    r = np.exp(-s)
    return -s - r, r - 1


def log_standard_normal(s):
    """Return log f(s) = -½ (log 2π + s²), with d/ds = -s."""
    return -0.5 * (LOG_2PI + s * s), -s


def log_standard_student(s, nu):
    """Return the log density of Student's t with ν degrees of freedom and its derivative. ν = 1 is the Cauchy law.

    log f(s) = log Γ((ν+1)/2) / (Γ(ν/2) √(νπ)) - (ν+1)/2 log(1 + s²/ν), with d/ds = -(ν+1) s/(ν + s²)
    """
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi)
    t = s / math.sqrt(nu)
    h = np.hypot(1, t)  # √(1 + s²/ν), without the s² that may overflow
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
exponential = Exponential()
weibull = Weibull()
log_normal = Exp("log-normal", gaussian)


def student_t(nu):
    """Return the location-scale law of Student's t with ν degrees of freedom, which are fixed and not a parameter.

    s = ε/√(χ²/ν), and the noise (2, …) holds ε ~ N(0, 1) and a χ² with ν degrees of freedom.

    nu   is ν, any number > 0; the smaller it is, the heavier are the tails. Others raise a ValueError.
    """
    if not (isinstance(nu, int | float | np.number) and 0 < nu < math.inf):
        raise ValueError(f"nu is {nu!r}; expected degrees of freedom > 0")
    noise = partial(_normal_and_chi_square, nu=nu)
    return LocationScale(f"student_t({nu:g})", noise, partial(_ratio, nu=nu), partial(log_standard_student, nu=nu))
