"""Auto-Encoding Variational Bayes on one page: Algorithm 1 for the paper's model of MNIST, in NumPy alone.

Read it with the paper open (Kingma & Welling, arXiv:1312.6114). The letters are the paper's, a number in brackets is
one of its equations, C.1 and C.2 are in its appendix. A datapoint is a row: the paper's W x + b is x W + b here.
    python examples/one_page.py FOLDER 10000          10,000 steps on MNIST: train-images-idx3-ubyte.gz in FOLDER
    python examples/one_page.py scikit-learn 10000    10,000 steps on scikit-learn's small digits, without a download
"""
# fmt: off

import gzip
import os
import sys

import numpy as np

M = 100    # datapoints in a minibatch; with so many, one draw of ε for each of them is enough: L = 1 (section 2.3)
H = 500    # hidden units of the encoder, and of the decoder (section 5)
J = 20     # dimensions of z


def layer(n_in, n_out, rng):
    """Draw W from N(0, 0.01), read as a standard deviation of 0.01, and start b at zero (section 5)."""
    return [0.01 * rng.standard_normal((n_in, n_out), dtype=np.float32), np.zeros(n_out, dtype=np.float32)]


def bound(theta, phi, x, eps, N):
    """Estimate the bound (8) of all N datapoints from a minibatch x and noise eps; also return its ∂/∂θ and ∂/∂φ."""
    W1, b1, W2, b2 = theta                                      # decoder: (J, H), (H,), (H, D), (D,)              C.1
    W3, b3, W4, b4, W5, b5 = phi                                # encoder: (D, H), (H,), twice (H, J), (J,)        C.2
    scale = N / len(x)                                          # each datapoint of x stands for N/M of them       (8)

    # Forward. The encoder gives q(z|x) = N(μ, σ² I) (9), ε picks a z from it, and the decoder gives p(x|z).
    h_enc = np.tanh(x @ W3 + b3)                                # (M, H)  hidden units of the encoder              C.2
    mu = h_enc @ W4 + b4                                        # (M, J)  μ                                        C.2
    log_var = h_enc @ W5 + b5                                   # (M, J)  log σ²                                   C.2
    sigma = np.exp(log_var / 2)                                 # (M, J)  σ
    z = mu + sigma * eps                                        # (M, J)  z = g(ε, x) = μ + σ ⊙ ε            (4), (10)
    h_dec = np.tanh(z @ W1 + b1)                                # (M, H)  hidden units of the decoder              C.1
    a = h_dec @ W2 + b2                                         # (M, D)  the logits of y                          C.1
    s = np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))         # (M, D)  s = log(1 + eᵃ), and no exponent is above 0
    y = np.exp(a - s)                                           # (M, D)  f_σ(a): log y = a - s, log(1 - y) = -s   C.1
    log_px = (x * a - s).sum(axis=1)                            # (M,)    Σ x log y + (1 - x) log(1 - y)          (11)
    neg_kl = (1 + log_var - mu**2 - sigma**2).sum(axis=1) / 2   # (M,)    -KL(q(z|x) ‖ p(z))              App. B, (10)
    value = scale * (neg_kl + log_px).sum()                     #         N/M times the sum of L^B (7) over x      (8)

    # Backward. The same lines from the last to the first, by the chain rule; dv is ∂value/∂v, of the shape of v.
    da = scale * (x - y)                                        # (M, D)  ∂(x a)/∂a = x, ∂s/∂a = eᵃ / (1 + eᵃ) = y
    dW2 = h_dec.T @ da                                          # (H, D)  ∂a/∂W2 = h, summed over rows
    db2 = da.sum(axis=0)                                        # (D,)    ∂a/∂b2 = 1, summed over rows
    dh_dec = da @ W2.T                                          # (M, H)  ∂a/∂h = W2, summed over pixels
    du_dec = dh_dec * (1 - h_dec**2)                            # (M, H)  h = tanh u: ∂h/∂u = 1 - tanh² u = 1 - h²
    dW1 = z.T @ du_dec                                          # (J, H)  u = z W1 + b1: ∂u/∂W1 = z, summed over rows
    db1 = du_dec.sum(axis=0)                                    # (H,)    ∂u/∂b1 = 1, summed over rows
    dz = du_dec @ W1.T                                          # (M, J)  ∂u/∂z = W1, summed over hidden units
    dmu = dz - scale * mu                                       # (M, J)  ∂z/∂μ = 1, and in -KL ∂(-½ μ²)/∂μ = -μ
    dsigma = dz * eps - scale * sigma                           # (M, J)  ∂z/∂σ = ε, and in -KL ∂(-½ σ²)/∂σ = -σ
    dlog_var = dsigma * sigma / 2 + scale / 2                   # (M, J)  ∂σ/∂log σ² = ½ σ, and in -KL ½ from ½ log σ²
    dW4 = h_enc.T @ dmu                                         # (H, J)  ∂μ/∂W4 = h, summed over rows
    db4 = dmu.sum(axis=0)                                       # (J,)    ∂μ/∂b4 = 1, summed over rows
    dW5 = h_enc.T @ dlog_var                                    # (H, J)  ∂log σ²/∂W5 = h, summed over rows
    db5 = dlog_var.sum(axis=0)                                  # (J,)    ∂log σ²/∂b5 = 1, summed over rows
    dh_enc = dmu @ W4.T + dlog_var @ W5.T                       # (M, H)  ∂μ/∂h = W4, ∂log σ²/∂h = W5: h feeds both
    du_enc = dh_enc * (1 - h_enc**2)                            # (M, H)  h = tanh u: ∂h/∂u = 1 - h²
    dW3 = x.T @ du_enc                                          # (D, H)  u = x W3 + b3: ∂u/∂W3 = x, summed over rows
    db3 = du_enc.sum(axis=0)                                    # (H,)    ∂u/∂b3 = 1, summed over rows
    return value, [dW1, db1, dW2, db2], [dW3, db3, dW4, db4, dW5, db5]


def step(theta, phi, squares, x, eps, N):
    """Move θ and φ uphill, in place, by Adagrad with stepsize 0.01 (section 5); return the bound before the move."""
    value, dtheta, dphi = bound(theta, phi, x, eps, N)
    for parameter, g in zip(theta, dtheta, strict=True):
        g -= parameter                                          # the prior p(θ) = N(0, I): ∂log p(θ)/∂θ = -θ
    for parameter, g, square in zip(theta + phi, dtheta + dphi, squares, strict=True):
        square += g**2                                          # Adagrad: the sum of g² over all steps so far
        parameter += 0.01 * g / (np.sqrt(square) + 1e-10)       # 1e-10: where g was always 0, the step is 0, not 0/0
    return value


def read_images(source):
    """Read MNIST's training images from a folder, or load scikit-learn's digits. Rows are images, pixels 0 to 1."""
    if source == "scikit-learn":
        from sklearn.datasets import load_digits
        return load_digits().data.astype(np.float32) / 16
    for path in (f"{source}/train-images-idx3-ubyte.gz", f"{source}/mnist/train-images-idx3-ubyte.gz"):
        if os.path.exists(path):
            with gzip.open(path) as file:                       # a header of 16 bytes, then one byte for each pixel
                return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784) / np.float32(255)
    sys.exit(f"{source} has no train-images-idx3-ubyte.gz: name the folder of MNIST's files, or say scikit-learn")


def main():
    """Run Algorithm 1, whose own lines stand on the right, and show an image beside its reconstruction."""
    source = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SCRATCHVAE_DATA", "scikit-learn")
    n_steps = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    rng = np.random.default_rng(0)
    train = read_images(source)
    N, D = train.shape
    print(f"{N:,} images of {D} pixels from {source}; nats per datapoint, then an image and its reconstruction")
    theta = layer(J, H, rng) + layer(H, D, rng)                 # θ, φ ← Initialize parameters
    phi = layer(D, H, rng) + layer(H, J, rng) + layer(H, J, rng)
    squares = [np.zeros_like(parameter) for parameter in theta + phi]
    shown = {round(t) for t in np.geomspace(1, n_steps, 41)}    # steps to show, evenly spaced on Figure 2's log axis
    bounds = []
    for t in range(1, n_steps + 1):                             # repeat
        x = train[rng.choice(N, M, replace=False)]              #     X^M ← Random minibatch of M datapoints
        eps = rng.standard_normal((M, J), dtype=np.float32)     #     ε ← Random samples from noise distribution p(ε)
        bounds.append(step(theta, phi, squares, x, eps, N))     #     g ← Gradients of (8); θ, φ ← Update using g
        if t in shown:                                          # show the mean over the last fifth of the steps
            print(f"{t * M:9,} samples, bound {np.mean(bounds[t * 4 // 5 :]) / N:.2f}")
    W1, b1, W2, b2 = theta
    W3, b3, W4, b4, _, _ = phi
    mu = np.tanh(train[0] @ W3 + b3) @ W4 + b4                  # the μ of the first image, ...
    a = np.tanh(mu @ W1 + b1) @ W2 + b2                         # ... and y = f_σ(a) = ½ + ½ tanh ½a at z = μ
    for row in np.hstack(np.reshape([train[0], 0.5 + np.tanh(a / 2) / 2], (2, int(D**0.5), -1))):
        print("".join(2 * " .:-=+*#%@"[int(9.99 * pixel)] for pixel in row))


if __name__ == "__main__":
    main()
