"""The equations of the paper once more, written naively in autograd.numpy, to check the library against.

The paper is Kingma & Welling, "Auto-Encoding Variational Bayes" (2014). This file imports nothing of the library, was
written from the paper alone, and takes no part in training. It follows the printed equations and not their fast or
stable forms, except where a gradient would overflow otherwise (logaddexp).

Every function takes the network's arrays as a dict {"encoder.hidden.W": …, …}. Data are rows x (M, D), one datapoint
per row; use float64. Log densities are in nats, one for each row; bounds are in nats, summed over all n_data
datapoints. eps (L, M, J) is the noise behind z, L draws for each datapoint with J latents. The names of posteriors,
likelihoods, objectives, means and activations are those of `VAE`.
"""

import autograd.numpy as np
from autograd.tracer import getval

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


def hidden(arrays, network, x, activation, affine=linear):
    """Return x after every hidden layer of `network`, in the order in which `arrays` lists them."""
    for name in dict.fromkeys(key.rsplit(".", 1)[0] for key in arrays if key.startswith(network + ".hidden")):
        x = ACTIVATIONS[activation](affine(arrays, name, x))
    return x


def encode(arrays, x, activation="tanh", heads=("mu", "log_var")):
    """Return μ and log σ² of q(z|x) (9), (M, J) each, or what other `heads` of the encoder give."""
    convolutions = [key[:-2] for key in arrays if key.startswith("encoder.conv") and key.endswith(".W")]
    y = x[:, :0]
    if convolutions:
        n_pixels = len(x[0]) - _n_classes(arrays, len(arrays["encoder.mu.b"]))
        x, y = x[:, :n_pixels], x[:, n_pixels:]
        C = len(arrays[convolutions[0] + ".W"]) // 4**2  # how many numbers a pixel has, under a kernel of 4 x 4 pixels
        x = np.reshape(x, (len(x), int((len(x[0]) / C) ** 0.5), -1, C))
    for name in convolutions:
        x = ACTIVATIONS[activation](convolution(arrays, name, x, 4, 2, 1))
    h = hidden(arrays, "encoder", np.concatenate([np.reshape(x, (len(x), -1)), y], axis=1), activation)
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
            after_h = total.shape[1] - stride * h - size
            after_w = total.shape[2] - stride * w - size
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


def log_full(z, mu, log_var, lower):
    """Return log N(z; μ, Σ) for each row. Σ = L Lᵀ, where L has √exp(log_var) on its diagonal and `lower` below it."""
    J = mu.shape[-1]
    L = factor(log_var, lower)
    total = []
    for d, root in zip(z - mu, L, strict=True):
        covariance = np.dot(root, root.T)
        square = np.dot(d, np.dot(np.linalg.inv(covariance), d))
        total.append(-(J * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + square) / 2)
    return np.array(total)


def factor(log_var, lower):
    """Return L (M, J, J), the factor of Σ = L Lᵀ."""
    J = log_var.shape[-1]
    places = [(i, j) for i in range(J) for j in range(i)]
    units = np.array([[[float((r, c) == place) for c in range(J)] for r in range(J)] for place in places])
    units = np.reshape(units, (len(places), J, J))
    return np.einsum("mi,ij->mij", np.sqrt(np.exp(log_var)), np.eye(J)) + np.einsum("mk,kij->mij", lower, units)


def log_continuous_bernoulli(x, a):
    """Return Σ log C(λ) + x log λ + (1 - x) log(1 - λ), λ = σ(a).

    C = 2 artanh(1 - 2λ) / (1 - 2λ), where 1 - 2λ = -tanh a/2.
    """
    return log_bernoulli(x, a) + np.sum(np.log(a / np.tanh(a / 2)), axis=-1)


def log_laplace(x, mu, log_scale):
    """Return Σ log exp(-|x - μ|/b) / 2b."""
    b = np.exp(log_scale)
    return np.sum(np.log(1 / (2 * b)) - np.abs(x - mu) / b, axis=-1)


def log_likelihood(arrays, x, z, likelihood, mean="sigmoid", activation="tanh", zeta=None):
    """Return log p(x|z), one number per row. With zeta the decoder's sums are drawn, by the next columns of zeta.

    A decoder whose first map reads more than z is one of p(x|z, y), with y in the last columns of x.
    """
    n_classes = _n_classes(arrays, z.shape[1])
    if n_classes:
        z = np.concatenate([z, x[:, -n_classes:]], axis=1)
        x = x[:, :-n_classes]
    affine = linear if zeta is None else drawn_sums(zeta)
    h = hidden(arrays, "decoder", z, activation, affine)
    inner = sorted((key for key in arrays if key.startswith("decoder.conv") and key.endswith(".W")), reverse=True)

    def output(head):
        name = f"decoder.{head}"
        if name + ".W" not in arrays:
            return arrays[name + ".b"] * np.ones(x.shape)
        if len(arrays[name + ".b"]) == len(x[0]):
            return affine(arrays, name, h)
        C = len(arrays[name + ".b"])
        sides = [int((len(x[0]) / C) ** 0.5)]  # of a convolutional decoder's images, from x inwards
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
    if likelihood == "continuous-bernoulli":
        return log_continuous_bernoulli(x, output("logits"))
    mu = sigmoid(output("mu")) if mean == "sigmoid" else output("mu")
    if likelihood == "laplace":
        return log_laplace(x, mu, output("log_scale"))
    return log_normal(x, mu, output("log_var"))


def _n_classes(arrays, n_latent):
    """Return how many numbers the decoder reads beside z: those of the class of an image."""
    return len(arrays[next(key for key in arrays if key.startswith("decoder.") and key.endswith(".W"))]) - n_latent


def drawn_sums(zeta):
    """Return x W + b with W and b drawn for each row, N(x μ_W + μ_b, x² σ_W² + σ_b²), by the next columns of zeta."""
    start = [0]

    def affine(arrays, name, h):
        spread = name.replace("decoder", "log_sigma")
        sd = np.sqrt(np.dot(h**2, np.exp(arrays[spread + ".W"]) ** 2) + np.exp(arrays[spread + ".b"]) ** 2)
        start[0] += sd.shape[-1]
        return linear(arrays, name, h) + sd * zeta[:, start[0] - sd.shape[-1] : start[0]]

    return affine


# Planar flows: Rezende & Mohamed 2015, (10), (12), (13), appendix A.1 with another m: a for a ≥ 0 and a/(1 - a) below


def planar_u(parameters, J):
    """Return û for parameters (M, 2 J + 1)."""
    u = parameters[:, :J]
    w = parameters[:, J : 2 * J]
    wu = np.sum(w * u, axis=1)
    m = np.where(wu > 0, wu, wu / (1 - np.where(wu > 0, 0, wu)))
    return u + ((m - wu) / np.sum(w * w, axis=1))[:, None] * w


def planar(parameters, z):
    """Return f(z) = z + û tanh(w·z + b) and log |1 + û·ψ(z)| for rows z (M, J).

    parameters (M, 2 J + 1) has u, w and b side by side, other ones for each row.
    """
    J = z.shape[1]
    w = parameters[:, J : 2 * J]
    b = parameters[:, 2 * J]
    u = planar_u(parameters, J)
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


def flow_inverse(parameters, z, n_maps):
    """Return z_0 from z_K: for each map α with α + w·û tanh(α + b) = w·z, by bisection, and z - û tanh(α + b)."""
    J = z.shape[1]
    width = parameters.shape[1] // n_maps
    for k in reversed(range(n_maps)):
        one = parameters[:, k * width : (k + 1) * width]
        w = one[:, J : 2 * J]
        b = one[:, 2 * J]
        u = planar_u(one, J)
        slope = np.sum(w * u, axis=1)
        right = np.sum(w * z, axis=1)
        plain_slope, plain_b, plain_right = (getval(getval(value)) for value in (slope, b, right))
        low = plain_right - abs(plain_slope)
        high = plain_right + abs(plain_slope)
        for _ in range(100):
            middle = (low + high) / 2
            below = middle + plain_slope * np.tanh(middle + plain_b) < plain_right
            low = np.where(below, middle, low)
            high = np.where(below, high, middle)
        alpha = (low + high) / 2  # the root; one step of Newton's then carries its derivative
        t = np.tanh(alpha + b)
        alpha = alpha - (alpha + slope * t - right) / (1 + slope * (1 - t**2))
        z = z - u * np.tanh(alpha + b)[:, None]
    return z


# The posterior


def heads(posterior, n_maps):
    """Return the names of what the encoder gives."""
    return ["mu", "log_var", *(["lower"] if posterior == "full" else []), *(["maps"] if n_maps else [])]


def log_base(z, outputs):
    """Return log q_0(z|x), which is diagonal (9) or full."""
    return log_normal(z, *outputs) if len(outputs) == 2 else log_full(z, *outputs)


def draw(arrays, x, noise, activation="tanh", posterior="gaussian", n_maps=0):
    """Return z = g(ε, x) and log q(z|x) for one ε (M, J)."""
    outputs = encode(arrays, x, activation, heads(posterior, n_maps))
    maps = outputs.pop() if n_maps else None
    if posterior == "full":
        z = outputs[0] + np.einsum("mij,mj->mi", factor(*outputs[1:]), noise)
    else:
        z = outputs[0] + np.exp(outputs[1] / 2) * noise
    log_q = log_base(z, outputs)
    if n_maps:
        z, log_det = flow(maps, z, n_maps)
        log_q = log_q - log_det
    return z, log_q


def log_q(arrays, x, z, activation="tanh", posterior="gaussian", n_maps=0):
    """Return log q(z|x) at a z that is given."""
    outputs = encode(arrays, x, activation, heads(posterior, n_maps))
    log_det = 0.0
    if n_maps:
        maps = outputs.pop()
        z = flow_inverse(maps, z, n_maps)
        log_det = flow(maps, z, n_maps)[1]
    return log_base(z, outputs) - log_det


def kl_of(arrays, x, activation="tanh", posterior="gaussian"):
    """Return KL(q(z|x) ‖ p(z)): appendix B, and for a full covariance ½ (tr Σ + μ·μ - J - log|Σ|)."""
    outputs = encode(arrays, x, activation, heads(posterior, 0))
    if posterior == "gaussian":
        return kl(*outputs)
    total = []
    for mu, root in zip(outputs[0], factor(*outputs[1:]), strict=True):
        covariance = np.dot(root, root.T)
        total.append((np.trace(covariance) + np.dot(mu, mu) - len(mu) - np.linalg.slogdet(covariance)[1]) / 2)
    return np.array(total)


# The objectives


def log_standard(z):
    """Return log p(z)."""
    return log_normal(z, np.zeros(z.shape), np.zeros(z.shape))


def bound(
    arrays,
    x,
    eps,
    n_data,
    estimator="B",
    likelihood="bernoulli",
    mean="sigmoid",
    activation="tanh",
    n_maps=0,
    posterior="gaussian",
    zeta=None,
):
    """Return (8) with L^A (6) or L^B (7), sample by sample.

    "iwae" is log 1/L Σ w with w = p(x, z) / q(z|x), the weights themselves: Burda et al. 2016 (8). "autoencoder" is
    log p(x|z) at the z of ε = 0. zeta (L M, units) is the noise of a decoder whose sums are drawn.
    """
    q = {"activation": activation, "posterior": posterior, "n_maps": n_maps}
    total = 0.0
    log_ws = []
    for k, noise in enumerate(eps):
        z, log_qz = draw(arrays, x, 0 * noise if estimator == "autoencoder" else noise, **q)
        rows = None if zeta is None else zeta[k * len(x) : (k + 1) * len(x)]
        log_px = log_likelihood(arrays, x, z, likelihood, mean, activation, rows)
        log_w = log_px + log_standard(z) - log_qz
        log_ws.append(log_w)
        if estimator == "B":
            total = total + log_px - kl_of(arrays, x, activation, posterior)
        else:
            total = total + (log_px if estimator == "autoencoder" else log_w)
    per_row = log_mean(np.array(log_ws)) if estimator == "iwae" else total / len(eps)
    return n_data / len(x) * np.sum(per_row)


def surrogate(
    arrays,
    held,
    x,
    eps,
    n_data,
    estimator,
    likelihood="bernoulli",
    mean="sigmoid",
    activation="tanh",
    n_maps=0,
    posterior="gaussian",
    zeta=None,
    dreams=None,
    beta=1.0,
    free_bits=0.0,
):
    """Return a function of `arrays` whose derivative is the gradient of an objective; `held` are not moved.

    "A" and "B" have the KL β times, and "B" may have a floor under the mean KL of each latent: Σ_j max(λ, E_x KL_j).
    "stl" is L^A with φ held in log q. "dreg" is Σ w̃ log p(x, z) with z held, and Σ w̃² log w with θ, and φ in log q,
    held. "black-box" is log p(x|z) and f log q(z|x) with z and f held. "wake-sleep" is the bound with φ held, and log
    q(z|x) of the dreams (x, z).
    """
    q = {"activation": activation, "posterior": posterior, "n_maps": n_maps}
    L = len(eps)
    M = len(x)
    rows = [None if zeta is None else zeta[k * M : (k + 1) * M] for k in range(L)]

    def log_px(arrays, z):
        return np.array([log_likelihood(arrays, x, z[k], likelihood, mean, activation, rows[k]) for k in range(L)])

    drawn, still = ([draw(some, x, noise, **q) for noise in eps] for some in (arrays, held))
    z, held_z = ([z for z, _ in part] for part in (drawn, still))
    prior = np.array([log_standard(one) for one in z])
    if estimator == "A":
        neg_kl = prior - np.array([log_qz for _, log_qz in drawn])
        return n_data / M * np.sum(log_px(arrays, z) + beta * neg_kl) / L
    if estimator == "B":
        kl = np.sum(kl_of(arrays, x, activation, posterior))
        if free_bits:
            mu, log_var = encode(arrays, x, activation)
            each = np.mean(mu**2 / 2 + np.exp(log_var) / 2 - 0.5 - log_var / 2, axis=0)
            kl = M * np.sum(np.maximum(each, free_bits))
        return n_data / M * (np.sum(log_px(arrays, z)) / L - beta * kl)
    held_f = log_px(held, held_z) + beta * np.array([log_standard(one) - log_qz for one, log_qz in still])
    if estimator == "stl":
        held_q = np.array([log_q(held, x, one, **q) for one in z])
        return n_data / M * np.sum(log_px(arrays, z) + beta * (prior - held_q)) / L
    if estimator == "dreg":
        share = np.exp(held_f - log_mean(held_f)) / L
        log_w = log_px(held, z) + prior - np.array([log_q(held, x, one, **q) for one in z])
        return n_data / M * np.sum(share * log_px(arrays, held_z) + share**2 * log_w)
    if estimator == "wake-sleep":
        theta_alone = {name: held[name] if name.startswith("encoder.") else array for name, array in arrays.items()}
        settings = {"likelihood": likelihood, "mean": mean, "zeta": zeta, **q}
        wake = bound(theta_alone, x, eps, n_data, "A" if n_maps else "B", **settings)
        return wake + n_data / len(dreams[0]) * np.sum(log_q(arrays, *dreams, **q))
    total = n_data / M * np.sum(log_px(arrays, held_z)) / L  # black-box
    if posterior != "gaussian" or n_maps:  # one weight for a row, less the mean of the other half
        f = held_f - other_half(held_f, np.ones(held_f.shape))
        return total + n_data / M * np.sum(f * np.array([log_q(arrays, x, one, **q) for one in held_z])) / L
    (mu, log_var) = encode(arrays, x, activation)
    (held_mu, held_log_var) = encode(held, x, activation)
    zs = np.array(held_z)
    log_qj = log_normal(zs[..., None], held_mu[..., None], held_log_var[..., None])  # factor by factor
    log_pj = log_normal(zs[..., None], 0 * zs[..., None], 0 * zs[..., None])
    f = log_px(held, held_z)[..., None] + beta * (log_pj - log_qj)
    s = (zs - held_mu) / np.exp(held_log_var / 2)
    for score, m, v in [(s / np.exp(held_log_var / 2), mu, held_log_var), ((s**2 - 1) / 2, held_mu, log_var)]:
        weight = f - other_half(f, score)
        total = total + n_data / M * np.sum(weight * log_normal(zs[..., None], m[..., None], v[..., None])) / L
    return total


def other_half(f, score):
    """Return for each sample the control variate E[h² f] / E[h²] of the half that it is not in."""
    half = len(f) // 2
    first, second = (
        np.sum(h**2 * g, axis=0) / np.sum(h**2, axis=0) for h, g in [(score[:half], f[:half]), (score[half:], f[half:])]
    )
    return np.array([second] * half + [first] * (len(f) - half))


def log_mean(log_w):
    """Return log 1/L Σ w; the weights are divided by one of their size, which does not move, lest they underflow."""
    size = np.max(getval(getval(log_w)), axis=0)
    return size + np.log(np.mean(np.exp(log_w - size), axis=0))


def log_prior(arrays):
    """Return log p(θ) = log N(θ; 0, I) of section 5, where θ are the decoder's arrays."""
    theta = [np.reshape(array, -1) for name, array in arrays.items() if name.startswith("decoder.")]
    return sum(log_normal(t, np.zeros(t.shape), np.zeros(t.shape)) for t in theta)


# Appendix F


def full_vb(
    arrays, x, eps, zeta, n_data, theta_noise="minibatch", estimator="B", alpha=1.0, held=None, closed=None, **settings
):
    """Return (22) with f of (21), or (24), draw by draw.

    The arrays "decoder.…" are μ and "log_sigma.…" are log σ. With alpha None, α is learned.

    With `held` the objective is its surrogate.
    """

    def f(theta, held_theta, rows, **more):
        if held is None:
            return bound(theta, x[rows], eps[:, rows], n_data, estimator, **settings, **more)
        return surrogate(theta, held_theta, x[rows], eps[:, rows], n_data, estimator, **settings, **more)

    closed = estimator != "A" if closed is None else closed
    if theta_noise == "local":
        return f(arrays, held, slice(None), zeta=zeta) - theta_kl(arrays, alpha)
    zeta = np.concatenate([zeta, -zeta]) if theta_noise == "antithetic" else zeta
    edges = [s * len(x) // len(zeta) for s in range(len(zeta) + 1)]
    total = 0.0
    for noise, start, stop in zip(zeta, edges, edges[1:], strict=False):
        theta = draw_theta(arrays, noise)
        held_theta = None if held is None else {**held, **draw_theta(held, noise)}
        one = f({**arrays, **theta}, held_theta, slice(start, stop))
        if not closed:
            for name, value in theta.items():
                mu = arrays[name]
                log_sigma = arrays[name.replace("decoder", "log_sigma")]
                a = np.log(alpha**2) * np.ones(value.shape)
                one = one + np.sum(log_normal(value, 0 * mu, a) - log_normal(value, mu, 2 * log_sigma))
        total = total + (stop - start) / len(x) * one
    return total - theta_kl(arrays, alpha) if closed else total


def draw_theta(arrays, zeta):
    """Return θ = μ + σ ⊙ ζ (23); zeta lists the decoder's arrays one after another."""
    theta = {}
    start = 0
    for name, mu in arrays.items():
        if name.startswith("decoder."):
            piece = np.reshape(zeta[start : start + mu.size], mu.shape)
            theta[name] = mu + np.exp(arrays[name.replace("decoder", "log_sigma")]) * piece
            start = start + mu.size
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
