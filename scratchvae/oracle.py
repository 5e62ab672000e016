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


def encode(arrays, x, activation="tanh", heads=("mu", "log_var")):
    """μ and log σ² of q(z|x)   (9)"""
    convolutions = [key[:-2] for key in arrays if key.startswith("encoder.conv") and key.endswith(".W")]
    if convolutions:
        x = np.reshape(x, (len(x), int(len(x[0]) ** 0.5), -1, 1))
    for name in convolutions:
        x = ACTIVATIONS[activation](convolution(arrays, name, x, 4, 2, 1))
    h = hidden(arrays, "encoder", np.reshape(x, (len(x), -1)), activation)
    return [linear(arrays, f"encoder.{head}", h) for head in heads]


def convolution(arrays, name, x, size, stride, padding):
    """y(h, w, c') = b(c') + Σ x(s h + i - p, s w + j - p, c) W(i, j, c, c'), one output pixel after another"""
    W = np.reshape(arrays[name + ".W"], (size, size, x.shape[3], -1))
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), "constant")
    rows = []
    for h in range((x.shape[1] - size) // stride + 1):
        row = []
        for w in range((x.shape[2] - size) // stride + 1):
            patch = x[:, stride * h : stride * h + size, stride * w : stride * w + size]
            row.append(np.einsum("mijc,ijco->mo", patch, W) + arrays[name + ".b"])
        rows.append(np.stack(row, axis=1))
    return np.stack(rows, axis=1)


def transposed_convolution(arrays, name, x, shape, size, stride, padding):
    """y(s h + i - p, s w + j - p, c) += x(h, w, c') W(i, j, c, c'), and b(c): each input pixel paints a patch"""
    H, W, C = shape
    kernel = np.reshape(arrays[name + ".W"], (size, size, C, -1))
    total = np.zeros((len(x), H + 2 * padding, W + 2 * padding, C))
    for h in range(x.shape[1]):
        for w in range(x.shape[2]):
            after_h, after_w = total.shape[1] - stride * h - size, total.shape[2] - stride * w - size
            place = (0, 0), (stride * h, after_h), (stride * w, after_w), (0, 0)
            total = total + np.pad(np.einsum("mo,ijco->mijc", x[:, h, w], kernel), place, "constant")
    return total[:, padding : padding + H, padding : padding + W] + arrays[name + ".b"]


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
    inner = sorted((key for key in arrays if key.startswith("decoder.conv") and key.endswith(".W")), reverse=True)

    def output(head):
        name = f"decoder.{head}"
        if len(arrays[name + ".b"]) == len(x[0]):
            return linear(arrays, name, h)
        sides = [int(len(x[0]) ** 0.5)]  # of a convolutional decoder's images, from x inwards
        while len(sides) < len(inner) + 2:
            sides.append((sides[-1] - 2) // 2 + 1)
        y = np.reshape(h, (len(z), sides[-1], sides[-1], -1))
        for key, side in zip([*inner, name + ".W"], sides[-2::-1], strict=True):
            shape = side, side, len(arrays[key[:-2] + ".b"])
            y = transposed_convolution(arrays, key[:-2], y, shape, 4, 2, 1)
            y = y if key == name + ".W" else ACTIVATIONS[activation](y)
        return np.reshape(y, (len(z), -1))

    if likelihood == "bernoulli":
        return log_bernoulli(x, output("logits"))
    mu = sigmoid(output("mu")) if mean == "sigmoid" else output("mu")
    if likelihood == "isotropic":
        return log_normal(x, mu, arrays["decoder.log_var.b"] * np.ones(mu.shape))
    return log_normal(x, mu, output("log_var"))


# Planar flows: Rezende & Mohamed 2015, (10), (12), (13), appendix A.1 with another m: a for a ≥ 0 and a/(1 - a) below


def planar(parameters, z):
    """f(z) = z + û tanh(w·z + b) and log |1 + û·ψ(z)| for rows z (M, J) and parameters (M, 2 J + 1)"""
    J = z.shape[-1]
    u, w, b = parameters[:, :J], parameters[:, J : 2 * J], parameters[:, 2 * J]
    wu = np.sum(w * u, axis=1)
    m = np.where(wu > 0, wu, wu / (1 - np.where(wu > 0, 0, wu)))
    u = u + ((m - wu) / np.sum(w * w, axis=1))[:, None] * w
    a = np.sum(w * z, axis=1) + b
    psi = (1 - np.tanh(a) ** 2)[:, None] * w
    return z + u * np.tanh(a)[:, None], np.log(np.abs(1 + np.sum(u * psi, axis=1)))


def flow(parameters, z, n_maps):
    """z_K and Σ log |det| of n_maps maps"""
    log_det = 0.0
    for k in range(n_maps):
        width = parameters.shape[1] // n_maps
        z, one = planar(parameters[:, k * width : (k + 1) * width], z)
        log_det = log_det + one
    return z, log_det


# The bound


def bound(arrays, x, eps, n_data, estimator="B", likelihood="bernoulli", mean="sigmoid", activation="tanh", n_maps=0):
    """(8) with L^A (6) or L^B (7): datapoint by datapoint, sample by sample. x (M, D), eps (L, M, J).

    "iwae" is log 1/L Σ w with w = p(x, z) / q(z|x), the weights themselves: Burda et al. 2016 (8). With n_maps, z is
    sent through a flow. "autoencoder" is log p(x|z) at z = μ.
    """
    mu, log_var = encode(arrays, x, activation)
    maps = encode(arrays, x, activation, ["maps"])[0] if n_maps else None
    sigma = np.exp(log_var / 2)
    total = 0.0
    for noise in eps:
        z = mu if estimator == "autoencoder" else mu + sigma * noise
        log_q = log_normal(z, mu, log_var)
        if n_maps:
            z, log_det = flow(maps, z, n_maps)
            log_q = log_q - log_det
        log_px, zero = log_likelihood(arrays, x, z, likelihood, mean, activation), np.zeros(z.shape)
        log_w = log_px + log_normal(z, zero, zero) - log_q
        terms = {"A": log_w, "B": log_px - kl(mu, log_var), "iwae": np.exp(log_w), "autoencoder": log_px}
        total = total + terms[estimator]
    per_row = np.log(total / len(eps)) if estimator == "iwae" else total / len(eps)
    return n_data / len(x) * np.sum(per_row)


def log_prior(arrays):
    """log p(θ) = log N(θ; 0, I), θ the decoder's arrays: section 5"""
    theta = [np.reshape(array, -1) for name, array in arrays.items() if name.startswith("decoder.")]
    return sum(log_normal(t, np.zeros(t.shape), np.zeros(t.shape)) for t in theta)


def dreams(arrays, x, z, n_data, activation="tanh"):
    """N/S Σ_s log q(z_s|x_s), what φ ascends in the sleep phase of wake-sleep"""
    return n_data / len(z) * np.sum(log_normal(z, *encode(arrays, x, activation)))


# Appendix F


def full_vb(arrays, x, eps, zeta, n_data, theta_noise="minibatch", estimator="B", alpha=1.0, **settings):
    """(22) with f of (21), or (24): draw by draw. "decoder.…" are μ and "log_sigma.…" log σ; alpha None is learned."""
    if theta_noise == "local":
        return local_bound(arrays, x, eps, zeta, n_data, **settings) - theta_kl(arrays, alpha)
    zeta = np.concatenate([zeta, -zeta]) if theta_noise == "antithetic" else zeta
    edges = [s * len(x) // len(zeta) for s in range(len(zeta) + 1)]
    total = 0.0
    for noise, start, stop in zip(zeta, edges, edges[1:], strict=False):
        theta, rows = draw_theta(arrays, noise), slice(start, stop)
        f = bound({**arrays, **theta}, x[rows], eps[:, rows], n_data, estimator, **settings)
        if estimator == "A":
            for name, value in theta.items():
                mu, log_sigma = arrays[name], arrays[name.replace("decoder", "log_sigma")]
                a = np.log(alpha**2) * np.ones(value.shape)
                f = f + np.sum(log_normal(value, 0 * mu, a) - log_normal(value, mu, 2 * log_sigma))
        total = total + (stop - start) / len(x) * f
    return total if estimator == "A" else total - theta_kl(arrays, alpha)


def draw_theta(arrays, zeta):
    """θ = μ + σ ⊙ ζ (23), ζ laid out as the decoder's arrays one after another"""
    theta, start = {}, 0
    for name, mu in arrays.items():
        if name.startswith("decoder."):
            piece = np.reshape(zeta[start : start + mu.size], mu.shape)
            theta[name], start = mu + np.exp(arrays[name.replace("decoder", "log_sigma")]) * piece, start + mu.size
    return theta


def theta_kl(arrays, alpha):
    """KL(N(μ, σ²) ‖ N(0, α²)) = Σ log α/σ + (μ² + σ²)/2α² - ½; learned, α² is the mean of μ² + σ² over an array"""
    total = 0.0
    for name, mu in arrays.items():
        if name.startswith("decoder."):
            sigma = np.exp(arrays[name.replace("decoder", "log_sigma")])
            a = np.sqrt(np.mean(mu**2 + sigma**2)) if alpha is None else alpha
            total = total + np.sum(np.log(a / sigma) + (mu**2 + sigma**2) / (2 * a**2) - 0.5)
    return total


def local_bound(arrays, x, eps, zeta, n_data, likelihood="bernoulli", mean="sigmoid", activation="tanh"):
    """(8) with L^B, one row at a time, its pre-activations drawn with their own mean and variance"""
    total, (q_mu, q_log_var) = 0.0, encode(arrays, x, activation)
    for k, noise in enumerate(zeta):  # row k is datapoint k mod M under its ε number k // M
        i, start = k % len(x), 0
        h = q_mu[i] + np.exp(q_log_var[i] / 2) * eps[k // len(x)][i]
        outputs = {}
        for name in [name for name in arrays if name.startswith("decoder.") and name.endswith(".W")]:
            name = name[: -len(".W")]
            spread = name.replace("decoder", "log_sigma")
            W, b = np.exp(arrays[spread + ".W"]), np.exp(arrays[spread + ".b"])
            width = len(b)
            drawn = linear(arrays, name, h) + np.sqrt(np.dot(h**2, W**2) + b**2) * noise[start : start + width]
            start += width
            if "hidden" in name:
                h = ACTIVATIONS[activation](drawn)
            else:
                outputs[name] = drawn
        if likelihood == "bernoulli":
            log_px = log_bernoulli(x[i], outputs["decoder.logits"])
        else:
            m = outputs["decoder.mu"]
            log_px = log_normal(x[i], sigmoid(m) if mean == "sigmoid" else m, outputs["decoder.log_var"])
        total = total + (log_px - kl(q_mu[i], q_log_var[i])) / len(eps)
    return n_data / len(x) * total
