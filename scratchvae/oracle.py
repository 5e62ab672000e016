"""The equations of the paper once more, written naively in autograd.numpy, to check the library against.

The paper is Kingma & Welling, "Auto-Encoding Variational Bayes" (2014). This file imports nothing of the library, was
written from the paper alone, and takes no part in training. It follows the printed equations and not their fast or
stable forms, except where a gradient would overflow otherwise (logaddexp).

Every function takes the network's arrays as a dict {"encoder.hidden.W": …, …}. Data are rows x (M, D), one datapoint
per row; use float64. Log densities are in nats, one for each row; bounds are in nats, summed over all n_data
datapoints. eps (L, M, J) is the noise behind z, L draws for each datapoint with J latents. likelihood is "bernoulli",
"gaussian" or "isotropic", mean "sigmoid" or "free", and activation a name in ACTIVATIONS, as in `VAE`.
"""

import autograd.numpy as np

# Appendix C


def linear(arrays, name, x):
    """Return the affine map x W + b with the arrays of the layer `name`."""
    return np.dot(x, arrays[name + ".W"]) + arrays[name + ".b"]


def softplus(a):
    """Return log(1 + eᵃ)."""
    return np.logaddexp(0.0, a)


def sigmoid(a):
    """Return 1 / (1 + e⁻ᵃ)."""
    return 1 / (1 + np.exp(-a))


def relu(a):
    """Return max(a, 0)."""
    return np.where(a > 0, a, 0 * a)


ACTIVATIONS = {"tanh": np.tanh, "relu": relu, "softplus": softplus, "sigmoid": sigmoid}


def hidden(arrays, network, x, activation):
    """Return x after every hidden layer of `network`, "encoder" or "decoder", in the order of `arrays`."""
    for name in dict.fromkeys(key.rsplit(".", 1)[0] for key in arrays if key.startswith(network + ".hidden")):
        x = ACTIVATIONS[activation](linear(arrays, name, x))
    return x


def encode(arrays, x, activation="tanh", heads=("mu", "log_var")):
    """Return μ and log σ² of q(z|x) (9), (M, J) each, or what other `heads` of the encoder give."""
    convolutions = [key[:-2] for key in arrays if key.startswith("encoder.conv") and key.endswith(".W")]
    if convolutions:
        x = np.reshape(x, (len(x), int(len(x[0]) ** 0.5), -1, 1))
    for name in convolutions:
        x = ACTIVATIONS[activation](convolution(arrays, name, x, 4, 2, 1))
    h = hidden(arrays, "encoder", np.reshape(x, (len(x), -1)), activation)
    return [linear(arrays, f"encoder.{head}", h) for head in heads]


def convolution(arrays, name, x, size, stride, padding):
    """Return the convolution of images x (M, H, W, C), one output pixel after another.

    y(h, w, c') = b(c') + Σ x(s h + i - p, s w + j - p, c) W(i, j, c, c'), with stride s and padding p; size is the side
    of the kernel.
    """
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
    """Return the transposed convolution of x (M, H', W', C') to images of `shape` (H, W, C).

    Each input pixel adds to a patch: y(s h + i - p, s w + j - p, c) += x(h, w, c') W(i, j, c, c'), and b(c) is added to
    all pixels.
    """
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
    """Return Σ x log y + (1 - x) log(1 - y) (11), where y = σ(a) is given by its logits a.

    log y = -log(1 + e⁻ᵃ) and log(1 - y) = -log(1 + eᵃ).
    """
    return np.sum(-x * np.logaddexp(0.0, -a) - (1 - x) * np.logaddexp(0.0, a), axis=-1)


def log_normal(x, mu, log_var):
    """Return Σ log N(x_i; μ_i, σ_i²) (12)."""
    sigma = np.sqrt(np.exp(log_var))
    return np.sum(np.log(1 / (sigma * np.sqrt(2 * np.pi))) - ((x - mu) / sigma) ** 2 / 2, axis=-1)


def kl(mu, log_var):
    """Return KL(N(μ, σ²) ‖ N(0, I)) = E_q log q - E_q log p from the two integrals of appendix B."""
    J = mu.shape[-1]
    e_log_q = -J / 2 * np.log(2 * np.pi) - np.sum(1 + log_var, axis=-1) / 2
    e_log_p = -J / 2 * np.log(2 * np.pi) - np.sum(mu**2 + np.exp(log_var), axis=-1) / 2
    return e_log_q - e_log_p


def log_likelihood(arrays, x, z, likelihood, mean="sigmoid", activation="tanh"):
    """Return log p(x|z), one number per row, for x (M, D) and z (M, J)."""
    h = hidden(arrays, "decoder", z, activation)
    inner = sorted((key for key in arrays if key.startswith("decoder.conv") and key.endswith(".W")), reverse=True)

    def output(head):
        name = f"decoder.{head}"
        if len(arrays[name + ".b"]) == len(x[0]):
            return linear(arrays, name, h)
        sides = [int(len(x[0]) ** 0.5)]  # the sides of a convolutional decoder's images, from x inwards
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


# Planar flows: D. Rezende & S. Mohamed 2015, "Variational Inference with Normalizing Flows", (10), (12) and (13). The m
# of their appendix A.1 is another one here: m(a) = a for a ≥ 0, and a/(1 - a) below.


def planar(parameters, z):
    """Return f(z) = z + û tanh(w·z + b) and log |1 + û·ψ(z)| for rows z (M, J).

    parameters (M, 2 J + 1) has u, w and b side by side, other ones for each row.
    """
    J = z.shape[-1]
    u, w, b = parameters[:, :J], parameters[:, J : 2 * J], parameters[:, 2 * J]
    wu = np.sum(w * u, axis=1)
    m = np.where(wu > 0, wu, wu / (1 - np.where(wu > 0, 0, wu)))
    u = u + ((m - wu) / np.sum(w * w, axis=1))[:, None] * w
    a = np.sum(w * z, axis=1) + b
    psi = (1 - np.tanh(a) ** 2)[:, None] * w
    return z + u * np.tanh(a)[:, None], np.log(np.abs(1 + np.sum(u * psi, axis=1)))


def flow(parameters, z, n_maps):
    """Return z after n_maps planar maps, and the sum of their log |det|; the maps' parameters are side by side."""
    log_det = 0.0
    for k in range(n_maps):
        width = parameters.shape[1] // n_maps
        z, one = planar(parameters[:, k * width : (k + 1) * width], z)
        log_det = log_det + one
    return z, log_det


# The bound


def bound(arrays, x, eps, n_data, estimator="B", likelihood="bernoulli", mean="sigmoid", activation="tanh", n_maps=0):
    """Return the bound (8), one sample after another.

    estimator "A" is L^A (6), and "B" is L^B (7). "iwae" is log 1/L Σ w with the weights w = p(x, z) / q(z|x) as they
    stand, (8) of Y. Burda, R. Grosse & R. Salakhutdinov 2016, "Importance Weighted Autoencoders". "autoencoder" is
    log p(x|z) at z = μ. If n_maps is not 0, z is sent through a flow of so many maps.
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
    """Return log p(θ) = log N(θ; 0, I) of section 5, where θ are the decoder's arrays."""
    theta = [np.reshape(array, -1) for name, array in arrays.items() if name.startswith("decoder.")]
    return sum(log_normal(t, np.zeros(t.shape), np.zeros(t.shape)) for t in theta)


def dreams(arrays, x, z, n_data, activation="tanh"):
    """Return N/S Σ_s log q(z_s|x_s), which φ ascends in the sleep phase of wake-sleep, for S dreams z_s and x_s."""
    return n_data / len(z) * np.sum(log_normal(z, *encode(arrays, x, activation)))


# Appendix F


def full_vb(arrays, x, eps, zeta, n_data, theta_noise="minibatch", estimator="B", alpha=1.0, **settings):
    """Return the bound over θ and z, (22) with f of (21), or (24) if estimator is "B", one draw of θ after another.

    The arrays "decoder.…" hold μ, and "log_sigma.…" log σ. zeta (S, P) is the noise behind S draws of θ; if theta_noise
    is "local", it is what `local_bound` takes. alpha is the α of the prior, or None where it is learned.
    """
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
    """Return θ = μ + σ ⊙ ζ (23) as a dict; zeta (P,) is laid out like the decoder's arrays, one after another."""
    theta, start = {}, 0
    for name, mu in arrays.items():
        if name.startswith("decoder."):
            piece = np.reshape(zeta[start : start + mu.size], mu.shape)
            theta[name], start = mu + np.exp(arrays[name.replace("decoder", "log_sigma")]) * piece, start + mu.size
    return theta


def theta_kl(arrays, alpha):
    """Return KL(N(μ, σ²) ‖ N(0, α²)) = Σ log α/σ + (μ² + σ²)/2α² - ½.

    Where alpha is None, α is learned: for each array α² is the mean of μ² + σ² over it.
    """
    total = 0.0
    for name, mu in arrays.items():
        if name.startswith("decoder."):
            sigma = np.exp(arrays[name.replace("decoder", "log_sigma")])
            a = np.sqrt(np.mean(mu**2 + sigma**2)) if alpha is None else alpha
            total = total + np.sum(np.log(a / sigma) + (mu**2 + sigma**2) / (2 * a**2) - 0.5)
    return total


def local_bound(arrays, x, eps, zeta, n_data, likelihood="bernoulli", mean="sigmoid", activation="tanh"):
    """Return (8) with L^B, one row at a time, whose pre-activations are drawn with their own mean and variance.

    zeta (L M, units) has a row for each datapoint and draw of z, and a column for each output of the affine maps.
    """
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
