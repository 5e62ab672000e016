"""The log density of Student's t with its partials, and the same with a wrong one. python
examples/gradcheck/student_t.py

log p(x) = log Γ((ν+1)/2) - log Γ(ν/2) - ½ log(ν π) - log σ - (ν+1)/2 log(1 + r²/ν), with r = (x - μ)/σ, element by
element. With w = (ν+1)/(ν + r²):  ∂/∂x = -w r/σ,  ∂/∂μ = w r/σ,  ∂/∂σ = (w r² - 1)/σ. The degrees of freedom ν are a
constant.
"""

import numpy as np
from scipy import special, stats

from scratchvae.gradcheck import check_density


def log_student_t(x, mu, sigma, nu=5.0):
    r = (x - mu) / sigma
    constant = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
    value = constant - np.log(sigma) - (nu + 1) / 2 * np.log1p(r * r / nu)
    w = (nu + 1) / (nu + r * r)
    return value, -w * r / sigma, w * r / sigma, (w * r * r - 1) / sigma


def same_sign(x, mu, sigma):
    value, dx, _, dsigma = log_student_t(x, mu, sigma)
    return value, dx, dx, dsigma  # μ moves the density against x


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    x = generator.standard_normal((4, 3))
    mu = generator.standard_normal((4, 3))
    sigma = generator.uniform(0.5, 2, (4, 3))
    print(check_density(log_student_t, x, mu, sigma, oracle=lambda x, mu, sigma: stats.t.logpdf(x, 5, mu, sigma)), "\n")
    print(check_density(same_sign, x, mu, sigma))
