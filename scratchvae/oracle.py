"""The paper once more, naively, in autograd.numpy: specification and witness.

It imports nothing of the library, was written from the paper alone, and is never on the training path. Every function
takes the network's arrays as a dict {"encoder.hidden.W": …, …} and follows the printed equation, not the fast or the
stable form, except where a gradient would overflow without it (logaddexp). Use float64.
"""

import autograd.numpy as np

# Appendix C


def linear(arrays, name, x):
    """x W + b"""
    return np.dot(x, arrays[name + ".W"]) + arrays[name + ".b"]


def softplus(a):
    """log(1 + eᵃ)"""
    return np.logaddexp(0.0, a)


def sigmoid(a):
    """1 / (1 + e⁻ᵃ)"""
    return 1 / (1 + np.exp(-a))


def relu(a):
    """max(a, 0)"""
    return np.where(a > 0, a, 0 * a)


ACTIVATIONS = {"tanh": np.tanh, "relu": relu, "softplus": softplus, "sigmoid": sigmoid}


def hidden(arrays, network, x, activation):
    """Every hidden layer of `network`, in the order in which `arrays` lists them."""
    for name in dict.fromkeys(key.rsplit(".", 1)[0] for key in arrays if key.startswith(network + ".hidden")):
        x = ACTIVATIONS[activation](linear(arrays, name, x))
    return x


def encode(arrays, x, activation="tanh"):
    """μ and log σ² of q(z|x)   (9)"""
    h = hidden(arrays, "encoder", x, activation)
    return linear(arrays, "encoder.mu", h), linear(arrays, "encoder.log_var", h)


# Densities


def log_bernoulli(x, a):
    """Σ x log y + (1 - x) log(1 - y) with log y = -log(1 + e⁻ᵃ), log(1 - y) = -log(1 + eᵃ)   (11)"""
    return np.sum(-x * np.logaddexp(0.0, -a) - (1 - x) * np.logaddexp(0.0, a), axis=-1)


def log_normal(x, mu, log_var):
    """Σ log N(x_i; μ_i, σ_i²)   (12)"""
    sigma = np.sqrt(np.exp(log_var))
    return np.sum(np.log(1 / (sigma * np.sqrt(2 * np.pi))) - ((x - mu) / sigma) ** 2 / 2, axis=-1)


def kl(mu, log_var):
    """KL(N(μ, σ²) ‖ N(0, I)) from the two integrals of appendix B: E_q log q - E_q log p"""
    J = mu.shape[-1]
    e_log_q = -J / 2 * np.log(2 * np.pi) - np.sum(1 + log_var, axis=-1) / 2
    e_log_p = -J / 2 * np.log(2 * np.pi) - np.sum(mu**2 + np.exp(log_var), axis=-1) / 2
    return e_log_q - e_log_p


def log_likelihood(arrays, x, z, likelihood, mean="sigmoid", activation="tanh"):
    """log p(x|z), one number per row"""
    h = hidden(arrays, "decoder", z, activation)
    if likelihood == "bernoulli":
        return log_bernoulli(x, linear(arrays, "decoder.logits", h))
    mu = linear(arrays, "decoder.mu", h)
    return log_normal(x, sigmoid(mu) if mean == "sigmoid" else mu, linear(arrays, "decoder.log_var", h))


# The bound


def bound(arrays, x, eps, n_data, estimator="B", likelihood="bernoulli", mean="sigmoid", activation="tanh"):
    """(8) with L^A (6) or L^B (7): datapoint by datapoint, sample by sample. x (M, D), eps (L, M, J)."""
    mu, log_var = encode(arrays, x, activation)
    sigma = np.exp(log_var / 2)
    total = 0.0
    for noise in eps:
        z = mu + sigma * noise
        log_px = log_likelihood(arrays, x, z, likelihood, mean, activation)
        if estimator == "A":
            zero = np.zeros(z.shape)
            total = total + log_px + log_normal(z, zero, zero) - log_normal(z, mu, log_var)
        else:
            total = total + log_px - kl(mu, log_var)
    return n_data / len(x) * np.sum(total / len(eps))


def log_prior(arrays):
    """log p(θ) = log N(θ; 0, I), θ the decoder's arrays: section 5"""
    theta = [np.reshape(array, -1) for name, array in arrays.items() if name.startswith("decoder.")]
    return sum(log_normal(t, np.zeros(t.shape), np.zeros(t.shape)) for t in theta)
