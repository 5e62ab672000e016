"""Gradients written by hand, with the mistakes that people make: ten more systems, by somebody else.

CASES is a list of (system, fault, make). The fault "" is none, and make(rng) returns (loss, params, grads, sizes). The
data do not depend on the fault.
"""

import numpy as np
from scipy.special import digamma, gammaln

CASES = []


def register(system, build, faults):
    for f in ["", *list(faults)]:
        CASES.append((system, f, (lambda rng, _f=f: build(rng, _f))))


def sigmoid(a):
    return 0.5 * (1.0 + np.tanh(0.5 * a))


def softplus(a):
    return np.logaddexp(0.0, a)


# 1. MLP
def mlp_tanh(rng, fault):
    N, D, H, C = 8, 4, 6, 3
    lam, lr = 0.1, 0.1
    p = {
        "x": rng.normal(size=(N, D)),
        "W1": rng.normal(size=(D, H)) / np.sqrt(D),
        "b1": 0.5 * rng.normal(size=H),
        "W2": rng.normal(size=(H, C)) / np.sqrt(H),
        "b2": 0.5 * rng.normal(size=C),
    }
    t = rng.normal(size=(N, C))

    def forward():
        h = np.tanh(p["x"] @ p["W1"] + p["b1"])
        return h, h @ p["W2"] + p["b2"]

    def loss():
        _, y = forward()
        return float(0.5 * np.sum((y - t) ** 2) / N + 0.5 * lam * (np.sum(p["W1"] ** 2) + np.sum(p["W2"] ** 2)))

    def grads():
        h, y = forward()
        dy = (y - t) / N
        W2 = p["W2"]
        dW2 = h.T @ dy + lam * W2
        db2 = dy.sum(0)
        if fault == "no decay on W2":
            dW2 = h.T @ dy
        if fault == "W2 stepped before backprop":
            W2 = W2 - lr * dW2
        dh = dy @ W2.T
        if fault == "tanh' as 1-h":
            da = dh * (1 - h)
        elif fault == "tanh' at the output":
            da = dh * (1 - np.tanh(h) ** 2)
        else:
            da = dh * (1 - h**2)
        dW1 = p["x"].T @ da + lam * p["W1"]
        db1 = da.sum(0)
        if fault == "b1 averaged over batch twice":
            db1 = da.mean(0)
        if fault == "decay on biases too":
            db1 = db1 + lam * p["b1"]
            db2 = db2 + lam * p["b2"]
        dx = da @ p["W1"].T
        if fault == "dx skips tanh'":
            dx = dh @ p["W1"].T
        return {"x": dx, "W1": dW1, "b1": db1, "W2": dW2, "b2": db2}

    return loss, p, grads, {"N": N, "D": D, "H": H, "C": C}


register(
    "mlp_tanh",
    mlp_tanh,
    [
        "tanh' as 1-h",
        "tanh' at the output",
        "no decay on W2",
        "decay on biases too",
        "b1 averaged over batch twice",
        "W2 stepped before backprop",
        "dx skips tanh'",
    ],
)


# 2. leaky ReLU, cross-entropy
def leaky_xent(rng, fault):
    N, D, H, C = 6, 5, 5, 4
    alpha = 0.2

    for _ in range(2000):
        p = {
            "x": rng.normal(size=(N, D)),
            "W1": rng.normal(size=(D, H)) * 0.7,
            "b1": 0.3 * rng.normal(size=H),
            "W2": rng.normal(size=(H, H)) * 0.7,
            "b2": 0.3 * rng.normal(size=H),
            "W3": rng.normal(size=(H, C)) * 0.7,
            "b3": 0.3 * rng.normal(size=C),
        }
        z1 = p["x"] @ p["W1"] + p["b1"]
        z2 = np.where(z1 > 0, z1, alpha * z1) @ p["W2"] + p["b2"]
        if min(np.abs(z1).min(), np.abs(z2).min()) > 0.03:
            break
    lab = rng.integers(0, C, size=N)
    lab[:C] = rng.permutation(C)

    def lrelu(z):
        return np.where(z > 0, z, alpha * z)

    def forward():
        z1 = p["x"] @ p["W1"] + p["b1"]
        h1 = lrelu(z1)
        z2 = h1 @ p["W2"] + p["b2"]
        h2 = lrelu(z2)
        s = h2 @ p["W3"] + p["b3"]
        return z1, h1, z2, h2, s

    def loss():
        s = forward()[-1]
        m = s.max(1, keepdims=True)
        lse = m[:, 0] + np.log(np.exp(s - m).sum(1))
        return float(np.mean(lse - s[np.arange(N), lab]))

    def slope(z, dh):
        if fault == "leak dropped in backward":
            return (z > 0) * 1.0
        if fault == "leak constant differs":
            return np.where(z > 0, 1.0, 0.01)
        if fault == "mask from upstream sign":
            return np.where(dh > 0, 1.0, alpha)
        return np.where(z > 0, 1.0, alpha)

    def grads():
        z1, h1, z2, h2, s = forward()
        e = np.exp(s - s.max(1, keepdims=True))
        q = e / e.sum(1, keepdims=True)
        ds = q.copy()
        if fault == "one-hot off by one":
            ds[np.arange(N), lab - 1] -= 1.0
        else:
            ds[np.arange(N), lab] -= 1.0
        if fault == "mean over all entries":
            ds /= ds.size
        else:
            ds /= N
        g = {"W3": h2.T @ ds, "b3": ds.sum(0)}
        dh2 = ds @ p["W3"].T
        dz2 = dh2 * slope(z2, dh2)
        g["W2"] = h1.T @ dz2
        g["b2"] = dz2.sum(0)
        if fault == "b2 before activation slope":
            g["b2"] = dh2.sum(0)
        dh1 = dz2 @ p["W2"].T
        dz1 = dh1 * slope(z2, dh1) if fault == "layer 1 mask from layer 2" else dh1 * slope(z1, dh1)
        g["W1"] = p["x"].T @ dz1
        g["b1"] = dz1.sum(0)
        g["x"] = dz1 @ p["W1"].T
        return {k: g[k] for k in p}

    return loss, p, grads, {"N": N, "D": D, "H": H, "C": C}


register(
    "leaky_xent",
    leaky_xent,
    [
        "leak dropped in backward",
        "leak constant differs",
        "mask from upstream sign",
        "layer 1 mask from layer 2",
        "one-hot off by one",
        "mean over all entries",
        "b2 before activation slope",
    ],
)


# 3. VAE
def vae(rng, fault):
    N, D, H, Z = 6, 5, 4, 3

    def w(a, b):
        return rng.normal(size=(a, b)) / np.sqrt(a)

    p = {
        "x": rng.uniform(0.05, 0.95, size=(N, D)),
        "We": w(D, H),
        "be": 0.3 * rng.normal(size=H),
        "Wm": w(H, Z),
        "bm": 0.3 * rng.normal(size=Z),
        "Wv": w(H, Z),
        "bv": 0.5 * rng.normal(size=Z),
        "Wd": w(Z, H),
        "bd": 0.3 * rng.normal(size=H),
        "Wo": w(H, D),
        "bo": 0.3 * rng.normal(size=D),
    }
    eps = rng.normal(size=(N, Z))

    def forward():
        h = np.tanh(p["x"] @ p["We"] + p["be"])
        mu = h @ p["Wm"] + p["bm"]
        lv = h @ p["Wv"] + p["bv"]
        z = mu + np.exp(0.5 * lv) * eps
        k = np.tanh(z @ p["Wd"] + p["bd"])
        s = k @ p["Wo"] + p["bo"]
        return h, mu, lv, z, k, s

    def loss():
        _h, mu, lv, _z, _k, s = forward()
        rec = np.sum(softplus(s) - p["x"] * s)
        kl = -0.5 * np.sum(1 + lv - mu**2 - np.exp(lv))
        return float((rec + kl) / N)  # negative bound

    def grads():
        h, mu, lv, z, k, s = forward()
        g = {}
        q = sigmoid(s)
        ds = (q - p["x"]) / N
        if fault == "sigmoid' applied once too often":
            ds = ds * q * (1 - q)
        g["Wo"], g["bo"] = k.T @ ds, ds.sum(0)
        dk = (ds @ p["Wo"].T) * (1 - k**2)
        g["Wd"], g["bd"] = z.T @ dk, dk.sum(0)
        dz = dk @ p["Wd"].T
        dmu = dz + mu / N
        std = np.exp(0.5 * lv)
        if fault == "variance in place of std":
            dlv = dz * eps * 0.5 * np.exp(lv)
        elif fault == "half of exp(lv/2) forgotten":
            dlv = dz * eps * std
        elif fault == "noise path to logvar dropped":
            dlv = np.zeros_like(lv)
        else:
            dlv = dz * eps * 0.5 * std
        dlv = dlv + 0.5 * (1 - np.exp(lv)) / N if fault == "KL sign for logvar" else dlv + 0.5 * (np.exp(lv) - 1) / N
        g["Wm"], g["bm"] = h.T @ dmu, dmu.sum(0)
        g["Wv"], g["bv"] = h.T @ dlv, dlv.sum(0)
        dh = dmu @ p["Wm"].T
        dh = dlv @ p["Wv"].T if fault == "encoder heads overwrite" else dh + dlv @ p["Wv"].T
        da = dh * (1 - h**2)
        g["We"], g["be"] = p["x"].T @ da, da.sum(0)
        dx = da @ p["We"].T
        if fault != "dx lacks the target path":
            dx = dx - s / N
        g["x"] = dx
        return {k_: g[k_] for k_ in p}

    return loss, p, grads, {"N": N, "D": D, "H": H, "Z": Z}


register(
    "vae",
    vae,
    [
        "half of exp(lv/2) forgotten",
        "variance in place of std",
        "noise path to logvar dropped",
        "KL sign for logvar",
        "encoder heads overwrite",
        "sigmoid' applied once too often",
        "dx lacks the target path",
    ],
)


# 4. group normalisation
def groupnorm(rng, fault):
    N, C, L, G = 3, 6, 4, 2
    eps = 1e-5
    p = {
        "x": rng.normal(size=(N, C, L)) + 0.7,
        "gamma": rng.uniform(0.5, 1.8, size=C),
        "beta": 0.5 * rng.normal(size=C),
    }
    t = rng.normal(size=(N, C, L))
    M = (C // G) * L

    def forward():
        xg = p["x"].reshape(N, G, M)
        mu = xg.mean(2, keepdims=True)
        var = ((xg - mu) ** 2).mean(2, keepdims=True)
        inv = 1 / np.sqrt(var + eps)
        xh = (xg - mu) * inv
        y = xh.reshape(N, C, L) * p["gamma"][:, None] + p["beta"][:, None]
        return xg, mu, inv, xh, y

    def loss():
        y = forward()[-1]
        return float(0.5 * np.sum((y - t) ** 2))

    def grads():
        xg, _mu, inv, xh, y = forward()
        dy = y - t
        xhc = xh.reshape(N, C, L)
        dbeta = dy.sum((0, 2))
        dgamma = (dy * xhc).sum((0, 2))
        if fault == "gain gradient with raw x":
            dgamma = (dy * p["x"]).sum((0, 2))
        gam = p["gamma"][:, None]
        dxh = (dy * gam).reshape(N, G, M)
        ax, m = 2, M
        if fault == "gain pulled out of the group":
            dxh = dy.reshape(N, G, M)
        if fault == "batch axis reduced too":
            ax, m = (0, 2), N * M
        if fault == "count is C*L":
            m = C * L
        if fault == "unbiased std in backward":
            inv = 1 / np.sqrt(xg.var(2, ddof=1, keepdims=True) + eps)
        s1 = dxh.sum(ax, keepdims=True) / m
        s2 = (dxh * xh).sum(ax, keepdims=True) / m
        if fault == "mean taken as constant":
            s1 = 0.0
        if fault == "variance taken as constant":
            s2 = 0.0
        dx = (inv * (dxh - s1 - xh * s2)).reshape(N, C, L)
        if fault == "gain pulled out of the group":
            dx = dx * gam
        return {"x": dx, "gamma": dgamma, "beta": dbeta}

    return loss, p, grads, {"N": N, "C": C, "L": L, "G": G}


register(
    "groupnorm",
    groupnorm,
    [
        "mean taken as constant",
        "variance taken as constant",
        "gain gradient with raw x",
        "gain pulled out of the group",
        "batch axis reduced too",
        "count is C*L",
        "unbiased std in backward",
    ],
)


# 5. GRU
def gru(rng, fault):
    T, N, D, H = 3, 4, 3, 5
    p = {"x": rng.normal(size=(T, N, D)), "h0": 0.7 * rng.normal(size=(N, H))}
    for k in "zrc":
        p["W" + k] = rng.normal(size=(D, H)) / np.sqrt(D)
        p["U" + k] = rng.normal(size=(H, H)) / np.sqrt(H)
        p["b" + k] = 0.4 * rng.normal(size=H)
    R = rng.normal(size=(T, N, H))

    def forward():
        h = p["h0"]
        cache = []
        for t in range(T):
            x = p["x"][t]
            z = sigmoid(x @ p["Wz"] + h @ p["Uz"] + p["bz"])
            r = sigmoid(x @ p["Wr"] + h @ p["Ur"] + p["br"])
            c = np.tanh(x @ p["Wc"] + (r * h) @ p["Uc"] + p["bc"])
            hn = (1 - z) * h + z * c
            cache.append((x, h, z, r, c, hn))
            h = hn
        return cache

    def loss():
        return float(sum(np.sum(R[t] * q[5]) for t, q in enumerate(forward())))

    def grads():
        cache = forward()
        g = {k: np.zeros_like(v) for k, v in p.items()}
        carry = np.zeros((N, H))
        for t in reversed(range(T)):
            x, h, z, r, c, _hn = cache[t]
            if fault == "stale reset gate":
                r = cache[-1][3]
            dh = R[t] + carry
            dz = dh * (h - c) if fault == "update gate roles swapped" else dh * (c - h)
            daz = dz * z * (1 - z)
            dac = dh * z * (1 - c**2)
            drh = dac @ p["Uc"].T
            dar = drh * h * r * (1 - r)
            for k, da in (("z", daz), ("r", dar), ("c", dac)):
                g["W" + k] += x.T @ da
                if fault == "bias overwritten each step":
                    g["b" + k] = da.sum(0)
                else:
                    g["b" + k] += da.sum(0)
            g["Uz"] += h.T @ daz
            g["Ur"] += h.T @ dar
            if fault == "Uc from h without reset":
                g["Uc"] += h.T @ dac
            else:
                g["Uc"] += (r * h).T @ dac
            g["x"][t] = daz @ p["Wz"].T + dar @ p["Wr"].T + dac @ p["Wc"].T
            carry = daz @ p["Uz"].T
            carry = carry + dar @ p["Uz"].T if fault == "Uz pasted for Ur" else carry + dar @ p["Ur"].T
            if fault != "candidate path to h lost":
                carry = carry + drh * r
            if fault != "direct carry (1-z) lost":
                carry = carry + dh * (1 - z)
        g["h0"] = carry
        return g

    return loss, p, grads, {"T": T, "N": N, "D": D, "H": H}


register(
    "gru",
    gru,
    [
        "update gate roles swapped",
        "candidate path to h lost",
        "direct carry (1-z) lost",
        "bias overwritten each step",
        "Uc from h without reset",
        "Uz pasted for Ur",
        "stale reset gate",
    ],
)


# 6. attention
def attention(rng, fault):
    B, T, D, A = 2, 4, 6, 2
    d = D // A
    p = {"x": rng.normal(size=(B, T, D))}
    for k in ("Wq", "Wk", "Wv", "Wo"):
        p[k] = rng.normal(size=(D, D)) / np.sqrt(D) * 1.3
    p["bo"] = 0.3 * rng.normal(size=D)
    tgt = rng.normal(size=(B, T, D))
    scale = 1 / np.sqrt(d)

    def split(a):
        return a.reshape(B, T, A, d).transpose(0, 2, 1, 3)

    def merge(a):
        return a.transpose(0, 2, 1, 3).reshape(B, T, D)

    def forward():
        x = p["x"]
        q, k, v = split(x @ p["Wq"]), split(x @ p["Wk"]), split(x @ p["Wv"])
        s = q @ k.swapaxes(-1, -2) * scale
        e = np.exp(s - s.max(-1, keepdims=True))
        P = e / e.sum(-1, keepdims=True)
        o = merge(P @ v)
        return q, k, v, P, o, o @ p["Wo"] + p["bo"]

    def loss():
        y = forward()[-1]
        return float(0.5 * np.sum((y - tgt) ** 2) / B)

    def grads():
        x = p["x"]
        q, k, v, P, o, y = forward()
        dy = (y - tgt) / B
        g = {"bo": dy.sum((0, 1)), "Wo": np.einsum("btd,bte->de", o, dy)}
        do = dy @ (p["Wo"] if fault == "Wo not transposed" else p["Wo"].T)
        doh = do.reshape(B, A, T, d) if fault == "heads split without transpose" else split(do)
        dv = P.swapaxes(-1, -2) @ doh
        dP = doh @ v.swapaxes(-1, -2)
        if fault == "softmax Jacobian diagonal only":
            ds = P * (1 - P) * dP
        elif fault == "softmax sum over queries":
            ds = P * (dP - (P * dP).sum(-2, keepdims=True))
        else:
            ds = P * (dP - (P * dP).sum(-1, keepdims=True))
        dq = ds @ k * scale
        if fault == "scores not transposed for keys":
            dk = ds @ q * scale
        elif fault == "scale forgotten for keys":
            dk = ds.swapaxes(-1, -2) @ q
        else:
            dk = ds.swapaxes(-1, -2) @ q * scale
        dq, dk, dv = merge(dq), merge(dk), merge(dv)
        for n, da in (("Wq", dq), ("Wk", dk), ("Wv", dv)):
            g[n] = np.einsum("btd,bte->de", x, da)
        dx = dq @ p["Wq"].T + dv @ p["Wv"].T
        if fault != "dx lacks the key path":
            dx = dx + dk @ p["Wk"].T
        g["x"] = dx
        return {n: g[n] for n in p}

    return loss, p, grads, {"B": B, "T": T, "D": D, "heads": A, "d": d}


register(
    "attention",
    attention,
    [
        "scale forgotten for keys",
        "softmax Jacobian diagonal only",
        "softmax sum over queries",
        "scores not transposed for keys",
        "dx lacks the key path",
        "heads split without transpose",
        "Wo not transposed",
    ],
)


# 7. Student t
def student_t(rng, fault):
    N, D = 9, 3
    p = {
        "x": 1.5 * rng.standard_t(4.0, size=(N, D)) + 0.5,
        "loc": rng.normal(size=D),
        "logscale": rng.uniform(0.2, 0.8, size=D) * rng.choice([-1, 1], size=D),
        "lognu": rng.uniform(0.4, 1.6, size=D),
    }

    def loss():
        nu = np.exp(p["lognu"])
        u = (p["x"] - p["loc"]) / np.exp(p["logscale"])
        lp = (
            gammaln((nu + 1) / 2)
            - gammaln(nu / 2)
            - 0.5 * np.log(nu * np.pi)
            - p["logscale"]
            - (nu + 1) / 2 * np.log1p(u**2 / nu)
        )
        return float(-np.sum(lp) / N)

    def grads():
        nu, s = np.exp(p["lognu"]), np.exp(p["logscale"])
        u = (p["x"] - p["loc"]) / s
        du = -(nu + 1) * u / (nu + u**2)  # d logp / du
        dloc = -du if fault == "1/scale forgotten for loc" else -du / s
        dx = du / s
        if fault == "x takes the sign of loc":
            dx = -dx
        dls = -u * du
        if fault != "log-scale lacks the -1":
            dls = dls - 1
        if fault == "digamma at nu, not nu/2":
            dnu = 0.5 * digamma(nu + 1) - 0.5 * digamma(nu) - 0.5 / nu
        elif fault == "normaliser -1/(2 nu) forgotten":
            dnu = 0.5 * digamma((nu + 1) / 2) - 0.5 * digamma(nu / 2)
        else:
            dnu = 0.5 * digamma((nu + 1) / 2) - 0.5 * digamma(nu / 2) - 0.5 / nu
        dnu = dnu - 0.5 * np.log1p(u**2 / nu)
        if fault != "nu inside the log constant":
            dnu = dnu + 0.5 * (nu + 1) * u**2 / (nu * (nu + u**2))
        dlnu = dnu if fault == "log-nu chain factor forgotten" else dnu * nu
        return {"x": -dx / N, "loc": -dloc.sum(0) / N, "logscale": -dls.sum(0) / N, "lognu": -dlnu.sum(0) / N}

    return loss, p, grads, {"N": N, "D": D}


register(
    "student_t",
    student_t,
    [
        "log-nu chain factor forgotten",
        "digamma at nu, not nu/2",
        "normaliser -1/(2 nu) forgotten",
        "nu inside the log constant",
        "log-scale lacks the -1",
        "1/scale forgotten for loc",
        "x takes the sign of loc",
    ],
)


# 8. planar flow
def planar_flow(rng, fault):
    N, D, K = 7, 3, 2
    p = {
        "z": rng.normal(size=(N, D)),
        "u": rng.normal(size=(K, D)),
        "w": rng.normal(size=(K, D)) + 0.3,
        "b": 0.5 * rng.normal(size=K),
    }
    while (p["w"] ** 2).sum(1).min() < 0.5:
        p["w"] = rng.normal(size=(K, D)) + 0.3
    R = 0.3 * rng.normal(size=(N, D))

    def forward():
        z, ld, cache = p["z"], np.zeros(N), []
        for k in range(K):
            u, w = p["u"][k], p["w"][k]
            dot, n2 = u @ w, w @ w
            c = (softplus(dot) - 1 - dot) / n2
            uh = u + c * w  # keeps uh.w > -1
            h = np.tanh(z @ w + p["b"][k])
            det = 1 + (uh @ w) * (1 - h**2)
            cache.append((z, dot, n2, c, uh, h, det))
            z = z + np.outer(h, uh)
            ld = ld + np.log(np.abs(det))
        return z, ld, cache

    def loss():
        z, ld, _ = forward()
        return float(-np.mean(ld) + np.sum(R * z))

    def grads():
        _, _, cache = forward()
        g = {k: np.zeros_like(v) for k, v in p.items()}
        dz = R.copy()
        for k in reversed(range(K)):
            z, dot, n2, c, uh, h, det = cache[k]
            u, w = p["u"][k], p["w"][k]
            if fault == "flow input from layer 0":
                z = p["z"]
            psi = 1 - h**2
            ddet = np.full(N, -1.0 / N)
            if fault != "1/det of the log forgotten":
                ddet = ddet / det
            duw = np.sum(ddet * psi)
            dpsi = ddet * (uh @ w)
            dh = dz @ uh - dpsi * h if fault == "factor 2 lost in tanh''" else dz @ uh - 2 * dpsi * h
            da = dh * psi
            duh = h @ dz + duw * w
            dw = da @ z
            if fault != "w misses the u.w product":
                dw = dw + duw * uh
            g["b"][k] = da.sum()
            dz = np.outer(da, w) if fault == "identity path of z lost" else dz + np.outer(da, w)
            du = duh
            if fault != "constraint on u ignored":
                dc = duh @ w
                ddot = dc * (sigmoid(dot) - 1) / n2
                dn2 = -dc * c / n2
                if fault == "|w|^2 taken as constant":
                    dn2 = 0.0
                du = du + ddot * w
                dw = dw + c * duh + ddot * u + 2 * dn2 * w
            g["u"][k], g["w"][k] = du, dw
        g["z"] = dz
        return g

    return loss, p, grads, {"N": N, "D": D, "K": K}


register(
    "planar_flow",
    planar_flow,
    [
        "factor 2 lost in tanh''",
        "1/det of the log forgotten",
        "w misses the u.w product",
        "identity path of z lost",
        "constraint on u ignored",
        "|w|^2 taken as constant",
        "flow input from layer 0",
    ],
)


# 9. conv1d + max-pooling
def conv_maxpool(rng, fault):
    N, Ci, Co, L, K, S, st = 2, 3, 4, 9, 3, 3, 2  # pool size 3, stride 2
    pad = 1
    Lp = (L - S) // st + 1

    def conv(x, W, b):
        xp = np.pad(x, ((0, 0), (0, 0), (pad, pad)))
        y = np.zeros((N, Co, L)) + b[:, None]
        for j in range(K):
            y = y + np.einsum("ncl,oc->nol", xp[:, :, j : j + L], W[:, :, j])
        return xp, y

    def windows(y):
        return np.stack([y[:, :, i * st : i * st + S] for i in range(Lp)], 2)

    for _ in range(2000):
        p = {"x": rng.normal(size=(N, Ci, L)), "W": rng.normal(size=(Co, Ci, K)) * 0.6, "b": 0.5 * rng.normal(size=Co)}
        top = np.sort(windows(conv(p["x"], p["W"], p["b"])[1]), -1)
        if (top[..., -1] - top[..., -2]).min() > 0.03:
            break
    t = rng.normal(size=(N, Co, Lp))

    def forward():
        xp, y = conv(p["x"], p["W"], p["b"])
        return xp, y, windows(y)

    def loss():
        return float(0.5 * np.sum((forward()[2].max(-1) - t) ** 2) / N)

    def grads():
        xp, y, win = forward()
        arg = win.argmax(-1)
        dm = (win.max(-1) - t) / N
        dy = np.zeros_like(y)
        ii, oo = np.meshgrid(np.arange(N), np.arange(Co), indexing="ij")
        for i in range(Lp):
            idx = arg[:, :, i] if fault == "window offset forgotten" else arg[:, :, i] + i * st
            if fault == "average-pool gradient":
                dy[:, :, i * st : i * st + S] += dm[:, :, i, None] / S
            elif fault == "overlapping windows overwrite":
                dy[ii, oo, idx] = dm[:, :, i]
            else:
                dy[ii, oo, idx] += dm[:, :, i]
        db = dy.sum((0, 2))
        if fault == "bias averaged over positions":
            db = dy.mean(2).sum(0)
        dW = np.zeros_like(p["W"])
        dxp = np.zeros_like(xp)
        for j in range(K):
            jw = K - 1 - j if fault == "kernel flipped in dW" else j
            dW[:, :, jw] = np.einsum("nol,ncl->oc", dy, xp[:, :, j : j + L])
            jx = K - 1 - j if fault == "kernel flipped in dx" else j
            dxp[:, :, j : j + L] += np.einsum("nol,oc->ncl", dy, p["W"][:, :, jx])
        dx = dxp[:, :, :L].copy() if fault == "padding cut at the wrong end" else dxp[:, :, pad : pad + L].copy()
        return {"x": dx, "W": dW, "b": db}

    return loss, p, grads, {"N": N, "Cin": Ci, "Cout": Co, "L": L, "K": K, "pool": S, "stride": st}


register(
    "conv_maxpool",
    conv_maxpool,
    [
        "overlapping windows overwrite",
        "window offset forgotten",
        "average-pool gradient",
        "kernel flipped in dW",
        "kernel flipped in dx",
        "padding cut at the wrong end",
        "bias averaged over positions",
    ],
)


# 10. logistic bilinear
def bilinear(rng, fault):
    N, D = 10, 4
    keep = 0.7
    p = {
        "x": rng.normal(size=(N, D)),
        "y": rng.normal(size=(N, D)),
        "W": 0.6 * rng.normal(size=(D, D)),
        "a": 0.6 * rng.normal(size=D),
        "c": 0.6 * rng.normal(size=D),
        "b": 0.5 * rng.normal(size=1),
    }
    mx = (rng.random((N, D)) < keep) * 1.0
    my = (rng.random((N, D)) < keep) * 1.0
    t = rng.choice([-1.0, 1.0], size=N)
    t[0], t[1] = 1.0, -1.0

    def forward():
        xd, yd = p["x"] * mx / keep, p["y"] * my / keep
        s = np.einsum("ni,ij,nj->n", xd, p["W"], yd) + xd @ p["a"] + yd @ p["c"] + p["b"][0]
        return xd, yd, s

    def loss():
        return float(np.mean(softplus(-t * forward()[2])))

    def grads():
        xd, yd, s = forward()
        ds = (sigmoid(s) - t) / N if fault == "0/1 residual with -1/1 labels" else -t * sigmoid(-t * s) / N
        if fault == "dW from undropped inputs":
            dW = (p["x"] * ds[:, None]).T @ p["y"]
        elif fault == "outer product of batch sums":
            dW = np.outer((xd * ds[:, None]).sum(0), yd.sum(0))
        else:
            dW = (xd * ds[:, None]).T @ yd
        WT = p["W"] if fault == "W not transposed in dx" else p["W"].T
        dxd = ds[:, None] * (yd @ WT + p["a"])
        if fault == "dy lacks the linear term":
            dyd = ds[:, None] * (xd @ p["W"])
        else:
            dyd = ds[:, None] * (xd @ p["W"] + p["c"])
        if fault == "1/keep forgotten in backward":
            dx, dy = dxd * mx, dyd * my
        elif fault == "mask of x pasted for y":
            dx, dy = dxd * mx / keep, dyd * mx / keep
        else:
            dx, dy = dxd * mx / keep, dyd * my / keep
        return {"x": dx, "y": dy, "W": dW, "a": xd.T @ ds, "c": yd.T @ ds, "b": np.array([ds.sum()])}

    return loss, p, grads, {"N": N, "D": D}


register(
    "bilinear",
    bilinear,
    [
        "0/1 residual with -1/1 labels",
        "dW from undropped inputs",
        "outer product of batch sums",
        "W not transposed in dx",
        "dy lacks the linear term",
        "1/keep forgotten in backward",
        "mask of x pasted for y",
    ],
)
