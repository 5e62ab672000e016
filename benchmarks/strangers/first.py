"""Gradients written by hand, with the mistakes that people make: ten systems by somebody who had not seen the checker.

CASES is a list of (system, fault, make). The fault "" is none, and make(rng) returns (loss, params, grads, sizes). The
data do not depend on the fault.
"""

from functools import partial

import numpy as np
from scipy.special import expit, logsumexp, softmax


# batch norm
def batchnorm(rng, fault=""):
    N, D, eps = 9, 5, 1e-3
    params = {
        "x": rng.normal(size=(N, D)) * rng.uniform(0.6, 2.0, D) + rng.normal(size=D),
        "gamma": rng.uniform(0.5, 1.8, D),
        "beta": rng.normal(size=D),
    }
    R = rng.normal(size=(N, D))

    def forward():
        x = params["x"]
        mu = x.mean(0)
        var = x.var(0)
        inv = 1.0 / np.sqrt(var + eps)
        xhat = (x - mu) * inv
        return mu, inv, xhat, params["gamma"] * xhat + params["beta"]

    def loss():
        return float(np.sum(R * forward()[-1]))

    def grads():
        x, gamma = params["x"], params["gamma"]
        mu, inv, xhat, _ = forward()
        dout = R.copy()
        dgamma = np.sum(dout * xhat, axis=0)
        if fault == "dgamma_uses_raw_x":
            dgamma = np.sum(dout * x, axis=0)
        dbeta = np.sum(dout, axis=0)
        dxhat = dout * gamma
        if fault == "gamma_forgotten_in_dx":
            dxhat = dout
        xc = x - mu
        power = 2 if fault == "dvar_inv_std_squared_not_cubed" else 3
        half = 1.0 if fault == "dvar_missing_half" else 0.5
        dvar = np.sum(dxhat * xc, axis=0) * -half * inv**power
        dmu = -np.sum(dxhat * inv, axis=0)
        n_var = N - 1 if fault == "bessel_in_backward" else N
        dx = dxhat * inv + dvar * 2.0 * xc / n_var + dmu / N
        if fault == "mean_path_dropped":
            dx = dxhat * inv + dvar * 2.0 * xc / N
        if fault == "stats_as_constants":  # eval-mode backward
            dx = dxhat * inv
        return {"x": dx, "gamma": dgamma, "beta": dbeta}

    return loss, params, grads, {"N": N, "D": D}


# layer norm
def layernorm(rng, fault=""):
    N, D, eps = 6, 8, 1e-5
    params = {
        "x": rng.normal(size=(N, D)) * rng.uniform(0.5, 2.0, (N, 1)) + rng.normal(size=(N, 1)),
        "gamma": rng.uniform(0.5, 1.8, D),
        "beta": rng.normal(size=D),
    }
    T = rng.normal(size=(N, D))

    def forward():
        x = params["x"]
        xc = x - x.mean(1, keepdims=True)
        inv = 1.0 / np.sqrt((xc**2).mean(1, keepdims=True) + eps)
        xhat = xc * inv
        return xc, inv, xhat, params["gamma"] * xhat + params["beta"]

    def loss():
        return float(0.5 * np.sum((forward()[-1] - T) ** 2))

    def grads():
        gamma = params["gamma"]
        xc, inv, xhat, out = forward()
        dout = out - T
        dgamma = np.sum(dout * xhat, axis=0)
        dbeta = np.sum(dout, axis=0)
        if fault == "dgamma_mean_over_rows":
            dgamma = np.mean(dout * xhat, axis=0)
        g = dout * gamma
        ax = 0 if fault == "means_over_batch_axis" else 1
        m1 = g.mean(axis=ax, keepdims=True)
        m2 = (g * xhat).mean(axis=ax, keepdims=True)
        if fault == "gamma_left_out_of_means":
            m1 = dout.mean(axis=1, keepdims=True)
            m2 = (dout * xhat).mean(axis=1, keepdims=True)
        if fault == "second_mean_is_a_sum":
            m2 = (g * xhat).sum(axis=1, keepdims=True)
        if fault == "xhat_not_multiplied_back":
            dx = inv * (g - m1 - m2)
        elif fault == "sign_of_variance_term":
            dx = inv * (g - m1 + xhat * m2)
        elif fault == "inplace_normalised_cache":
            xc *= inv  # normalised in place ...
            dvar = np.sum(g * xc, axis=1, keepdims=True) * -0.5 * inv**3
            dxc = g * inv + dvar * 2.0 * xc / D  # ... then used as centred x
            dx = dxc - dxc.mean(1, keepdims=True)
        else:
            dx = inv * (g - m1 - xhat * m2)
        return {"x": dx, "gamma": dgamma, "beta": dbeta}

    return loss, params, grads, {"N": N, "D": D}


# attention
def attention(rng, fault=""):
    T, M, d = 6, 5, 3  # tokens, model width, head width
    params = {
        "x": rng.normal(size=(T, M)),
        "Wq": rng.normal(size=(M, d)) * 0.7,
        "Wk": rng.normal(size=(M, d)) * 0.7,
        "Wv": rng.normal(size=(M, d)) * 0.7,
    }
    R = rng.normal(size=(T, d))
    causal = np.tril(np.ones((T, T), bool))
    scale = 1.0 / np.sqrt(d)

    def forward():
        x = params["x"]
        q, k, v = x @ params["Wq"], x @ params["Wk"], x @ params["Wv"]
        s = np.where(causal, q @ k.T * scale, -1e30)
        a = softmax(s, axis=1)
        return q, k, v, a, a @ v

    def loss():
        return float(np.sum(R * forward()[-1]))

    def grads():
        x = params["x"]
        q, k, v, a, _ = forward()
        if fault == "probs_recomputed_without_mask":
            a = softmax(q @ k.T * scale, axis=1)
        do = R.copy()
        dv = a.T @ do
        da = do @ v.T
        if fault == "softmax_jacobian_diagonal_only":
            ds = a * (1 - a) * da
        elif fault == "softmax_sum_over_queries":
            ds = a * (da - np.sum(da * a, axis=0, keepdims=True))
        else:
            ds = a * (da - np.sum(da * a, axis=1, keepdims=True))
        if fault != "scale_forgotten":
            ds = ds * scale
        dq = ds @ k
        dk = ds.T @ q
        if fault == "dk_score_not_transposed":
            dk = ds @ q
        dWq, dWk, dWv = x.T @ dq, x.T @ dk, x.T @ dv
        if fault == "dWk_pasted_from_dWq":
            dWk = x.T @ dq
        dx = dq @ params["Wq"].T + dk @ params["Wk"].T + dv @ params["Wv"].T
        if fault == "dx_without_value_path":
            dx = dq @ params["Wq"].T + dk @ params["Wk"].T
        return {"x": dx, "Wq": dWq, "Wk": dWk, "Wv": dWv}

    return loss, params, grads, {"T": T, "M": M, "d": d}


# LSTM cell
def lstm_cell(rng, fault=""):
    B, D, H = 4, 5, 3
    params = {
        "x": rng.normal(size=(B, D)),
        "h": rng.normal(size=(B, H)) * 0.6,
        "c": rng.normal(size=(B, H)),
        "Wx": rng.normal(size=(D, 4 * H)) * 0.5,
        "Wh": rng.normal(size=(H, 4 * H)) * 0.5,
        "b": rng.normal(size=4 * H) * 0.3,
    }
    Rh, Rc = rng.normal(size=(B, H)), rng.normal(size=(B, H))
    fbias = 1.0

    def forward():
        z = params["x"] @ params["Wx"] + params["h"] @ params["Wh"] + params["b"]
        zi, zf, zg, zo = np.split(z, 4, axis=1)
        i, f, g, o = expit(zi), expit(zf + fbias), np.tanh(zg), expit(zo)
        c1 = f * params["c"] + i * g
        return zf, i, f, g, o, c1, o * np.tanh(c1)

    def loss():
        *_, c1, h1 = forward()
        return float(np.sum(Rh * h1) + np.sum(Rc * c1))

    def grads():
        x, h, c = params["x"], params["h"], params["c"]
        zf, i, f, g, o, c1, _ = forward()
        dh, dc_next = Rh, Rc
        tc = np.tanh(c1)
        do = dh * tc
        if fault == "do_uses_c_without_tanh":
            do = dh * c1
        dtanh = 1 - tc**2
        if fault == "tanh_derivative_at_c":
            dtanh = 1 - c1**2
        dc = dh * o * dtanh + dc_next
        if fault == "incoming_dc_dropped":
            dc = dh * o * dtanh
        df = dc * c
        if fault == "df_uses_new_c":
            df = dc * c1
        di, dg = dc * g, dc * i
        dc_prev = dc * f
        dzi = di * i * (1 - i)
        if fault == "forget_bias_lost_in_backward":
            fs = expit(zf)
            dzf = df * fs * (1 - fs)
        else:
            dzf = df * f * (1 - f)
        dzg = dg * (1 - g**2)
        if fault == "candidate_gate_as_sigmoid":
            dzg = dg * g * (1 - g)
        dzo = do * o * (1 - o)
        order = [dzi, dzf, dzg, dzo]
        if fault == "gate_order_ifog":
            order = [dzi, dzf, dzo, dzg]
        dz = np.concatenate(order, axis=1)
        return {
            "x": dz @ params["Wx"].T,
            "h": dz @ params["Wh"].T,
            "c": dc_prev,
            "Wx": x.T @ dz,
            "Wh": h.T @ dz,
            "b": dz.sum(0),
        }

    return loss, params, grads, {"B": B, "D": D, "H": H}


# embedding bag and a linear
def embedding(rng, fault=""):
    V, D, C, B, L, pad = 7, 4, 3, 5, 6, 0
    idx = rng.integers(1, V, size=(B, L))
    lens = rng.integers(3, L + 1, size=B)
    lens[0], lens[1] = 3, L
    idx[1, 1] = idx[1, 0]  # a repeat inside a bag
    idx[2, 0] = idx[1, 0]  # and across bags
    idx[np.arange(L)[None, :] >= lens[:, None]] = pad
    params = {
        "E": rng.normal(size=(V, D)),
        "W": rng.normal(size=(D, C)),
        "b": rng.normal(size=C),
    }
    T = rng.normal(size=(B, C))
    mask = (idx != pad).astype(float)
    count = mask.sum(1, keepdims=True)

    def forward():
        pooled = np.sum(params["E"][idx] * mask[:, :, None], axis=1) / count
        return pooled, pooled @ params["W"] + params["b"]

    def loss():
        return float(0.5 * np.sum((forward()[1] - T) ** 2) / B)

    def grads():
        E, W = params["E"], params["W"]
        pooled, y = forward()
        dy = (y - T) / B
        dW = pooled.T @ dy
        db = dy.sum(0)
        if fault == "db_mean_not_sum":
            db = dy.mean(0)
        if fault == "dpooled_after_W_update":
            W = W - 0.1 * dW  # SGD step taken too early
        dpooled = dy @ W.T
        denom = float(L) if fault == "divides_by_padded_length" else count
        m = np.ones_like(mask) if fault == "padding_row_gets_gradient" else mask
        dtok = (dpooled / denom)[:, None, :] * m[:, :, None]
        dE = np.zeros_like(E)
        if fault == "fancy_index_plus_equals":
            dE[idx] += dtok
        elif fault == "repeat_in_bag_counted_once":
            for r in range(B):
                for t in set(idx[r]) - {pad}:
                    dE[t] += dpooled[r] / count[r]
        elif fault == "scatter_row_off_by_one":
            np.add.at(dE, np.where(idx != pad, idx - 1, idx), dtok)
        else:
            np.add.at(dE, idx, dtok)
        return {"E": dE, "W": dW, "b": db}

    return loss, params, grads, {"V": V, "D": D, "C": C, "B": B, "L": L}


# 2-d convolution
def conv2d(rng, fault=""):
    N, C, F, H, W, k = 2, 3, 3, 5, 6, 3
    Ho, Wo = H - k + 1, W - k + 1
    params = {
        "x": rng.normal(size=(N, C, H, W)),
        "w": rng.normal(size=(F, C, k, k)) * 0.25,
        "b": rng.normal(size=F) * 0.3,
    }
    R = rng.normal(size=(N, F, Ho, Wo))

    def forward():
        win = np.lib.stride_tricks.sliding_window_view(params["x"], (k, k), axis=(2, 3))
        z = np.tensordot(win, params["w"], axes=([1, 4, 5], [1, 2, 3]))
        return np.tanh(z.transpose(0, 3, 1, 2) + params["b"][None, :, None, None])

    def loss():
        return float(np.sum(R * forward()))

    def grads():
        x, w = params["x"], params["w"]
        a = forward()
        dz = R * (1 - a**2)
        if fault == "tanh_of_activation_again":
            dz = R * (1 - np.tanh(a) ** 2)
        dx, dw = np.zeros_like(x), np.zeros_like(w)
        db = dz.sum(axis=(0, 2, 3))
        wx = w
        if fault == "dx_kernel_flipped":
            wx = w[:, :, ::-1, ::-1]
        if fault == "dx_channels_filters_swapped":
            wx = w.transpose(1, 0, 2, 3)
        last = 1 if fault == "last_output_row_skipped" else 0
        for n in range(N):
            if fault == "dw_reset_for_each_sample":
                dw[:] = 0
            for p in range(Ho - last):
                for q in range(Wo):
                    d = dz[n, :, p, q]
                    dw += d[:, None, None, None] * x[n, None, :, p : p + k, q : q + k]
                    patch = np.tensordot(d, wx, axes=(0, 0))
                    if fault == "dx_patch_overwrites":
                        dx[n, :, p : p + k, q : q + k] = patch
                    else:
                        dx[n, :, p : p + k, q : q + k] += patch
        if fault == "dw_rotated_180":
            dw = dw[:, :, ::-1, ::-1].copy()
        return {"x": dx, "w": dw, "b": db}

    return loss, params, grads, {"N": N, "C": C, "F": F, "H": H, "W": W, "k": k}


# weighted softmax cross-entropy
def softmax_xent(rng, fault=""):
    N, D, K = 10, 4, 5
    y = np.concatenate([np.arange(K), rng.integers(0, K, N - K)])
    rng.shuffle(y)
    cw = rng.uniform(0.3, 3.0, K)
    params = {
        "x": rng.normal(size=(N, D)),
        "W": rng.normal(size=(D, K)),
        "b": rng.normal(size=K) * 0.5,
    }
    rows = np.arange(N)

    def forward():
        return params["x"] @ params["W"] + params["b"]

    def loss():
        z = forward()
        nll = logsumexp(z, axis=1) - z[rows, y]
        return float(np.sum(cw[y] * nll) / np.sum(cw[y]))

    def grads():
        x, W = params["x"], params["W"]
        z = forward()
        p = softmax(z, axis=0 if fault == "softmax_over_batch_axis" else 1)
        wy = cw[y][:, None]
        norm = float(N) if fault == "normalised_by_N" else cw[y].sum()
        d = p.copy()
        if fault == "label_off_by_one":
            d[rows, y - 1] -= 1
        elif fault == "all_rows_indexed_by_labels":
            d[:, y] -= 1
        elif fault == "weight_on_onehot_only":
            d[rows, y] -= cw[y]
        else:
            d[rows, y] -= 1
        if fault == "weight_forgotten":
            dz = d / N
        elif fault == "weight_by_column":
            dz = d * cw[None, :] / norm
        elif fault == "weight_on_onehot_only":
            dz = d / norm
        else:
            dz = d * wy / norm
        return {"x": dz @ W.T, "W": x.T @ dz, "b": dz.sum(0)}

    return loss, params, grads, {"N": N, "D": D, "K": K}


# Gaussian mixture
def gmm(rng, fault=""):
    N, D, K = 11, 2, 3
    params = {
        "x": rng.normal(size=(N, D)) * 1.5,
        "logits": rng.normal(size=K),
        "mu": rng.normal(size=(K, D)),
        "log_sigma": rng.uniform(-0.5, 0.6, K),  # isotropic
    }

    def forward():
        diff = params["x"][:, None, :] - params["mu"][None]  # N K D
        d2 = np.sum(diff**2, axis=2)
        s = np.exp(params["log_sigma"])
        logn = -0.5 * d2 / s**2 - D * params["log_sigma"] - 0.5 * D * np.log(2 * np.pi)
        logpi = params["logits"] - logsumexp(params["logits"])
        return diff, d2, s, logn, logpi

    def loss():
        *_, logn, logpi = forward()
        return float(np.sum(logsumexp(logn + logpi, axis=1)))

    def grads():
        diff, d2, s, logn, logpi = forward()
        r = softmax(logn + logpi, axis=1)
        if fault == "responsibilities_without_weights":
            r = softmax(logn, axis=1)
        dlogits = r.sum(0) - N * np.exp(logpi)
        if fault == "softmax_normaliser_forgotten":
            dlogits = r.sum(0)
        pw = 1 if fault == "dmu_over_sigma_not_squared" else 2
        dmu = np.sum(r[:, :, None] * diff, axis=0) / s[:, None] ** pw
        if fault == "dmu_divided_by_Nk":  # as in the EM update
            dmu = dmu / r.sum(0)[:, None]
        dx = -np.sum(r[:, :, None] * diff / s[None, :, None] ** 2, axis=1)
        if fault == "dx_same_sign_as_dmu":
            dx = -dx
        if fault == "logdet_once_not_D_times":
            dls = np.sum(r * (d2 / s**2 - 1), axis=0)
        elif fault == "derivative_for_sigma_not_log":
            dls = np.sum(r * (d2 / s**3 - D / s), axis=0)
        else:
            dls = np.sum(r * (d2 / s**2 - D), axis=0)
        return {"x": dx, "logits": dlogits, "mu": dmu, "log_sigma": dls}

    return loss, params, grads, {"N": N, "D": D, "K": K}


# RBF network
def rbf_net(rng, fault=""):
    N, D, K = 8, 3, 3
    params = {
        "x": rng.normal(size=(N, D)),
        "c": rng.normal(size=(K, D)),
        "s": np.array([0.8, 1.2, 1.7]) + rng.uniform(-0.1, 0.1, K),
        "w": rng.choice([-1.0, 1.0], K) * rng.uniform(0.6, 1.8, K),
        "b": rng.normal(size=1),
    }
    t = rng.normal(size=N)

    def forward():
        diff = params["x"][:, None, :] - params["c"][None]  # N K D
        d2 = np.sum(diff**2, axis=2)
        phi = np.exp(-d2 / (2 * params["s"] ** 2))
        return diff, d2, phi, phi @ params["w"] + params["b"][0]

    def loss():
        return float(0.5 * np.mean((forward()[-1] - t) ** 2))

    def grads():
        s, w = params["s"], params["w"]
        diff, d2, phi, yhat = forward()
        e = (yhat - t) / N
        dw = phi.T @ e
        db = np.array([e.sum()])
        if fault == "db_target_minus_output":
            db = np.array([np.sum(t - yhat) / N])
        G = e[:, None] * w[None, :] * phi  # d loss / d exponent
        if fault == "exp_factor_forgotten":
            G = e[:, None] * w[None, :]
        Gc = G
        if fault == "dc_output_weight_forgotten":
            Gc = e[:, None] * phi
        step = diff / s[None, :, None] ** 2
        if fault == "width_broadcast_over_features":
            step = diff / s**2  # K == D hides it
        dc = np.sum(Gc[:, :, None] * step, axis=0)
        if fault == "dc_sign":
            dc = -dc
        dx = -np.sum(G[:, :, None] * step, axis=1)
        if fault == "dx_half_kept":
            dx = 0.5 * dx
        ds = np.sum(G * d2, axis=0) / s**3
        if fault == "ds_over_s_squared":
            ds = np.sum(G * d2, axis=0) / s**2
        return {"x": dx, "c": dc, "s": ds, "w": dw, "b": db}

    return loss, params, grads, {"N": N, "D": D, "K": K}


# matrix factorisation
def matfac(rng, fault=""):
    n, m, k, lam = 6, 8, 3, 0.15
    params = {
        "U": rng.normal(size=(n, k)) * 0.8,
        "V": rng.normal(size=(m, k)) * 0.8,
        "bu": rng.normal(size=n) * 0.6,
        "bi": rng.normal(size=m) * 0.6,
    }
    obs = rng.random((n, m)) < 0.6
    obs[np.arange(n), np.arange(n)] = True
    obs[0, 1] = False
    S = obs * rng.integers(1, 6, size=(n, m)).astype(float)  # 0: no rating
    M = obs.astype(float)
    mean = S.sum() / M.sum()

    def forward():
        return mean + params["bu"][:, None] + params["bi"][None, :] + params["U"] @ params["V"].T

    def loss():
        e = M * (forward() - S)
        reg = sum(np.sum(params[q] ** 2) for q in ("U", "V", "bu", "bi"))
        return float(np.sum(e**2) / M.sum() + lam * reg)

    def grads():
        U, V, bu, bi = (params[q] for q in ("U", "V", "bu", "bi"))
        pred = forward()
        if fault == "residual_without_biases":
            pred = mean + U @ V.T
        resid = pred - S
        if fault != "unrated_cells_count":
            resid = M * resid
        total = n * m if fault == "divides_by_all_cells" else M.sum()
        e = 2.0 * resid / total
        cu = ci = 1.0
        if fault == "penalty_per_rating":  # as in the SGD recipe
            cu, ci = M.sum(1) / M.sum(), M.sum(0) / M.sum()
        two = 1.0 if fault == "penalty_factor_two_forgotten" else 2.0
        pu, pv = two * lam * (U.T * cu).T, two * lam * (V.T * ci).T
        pbu, pbi = two * lam * bu * cu, two * lam * bi * ci
        if fault == "biases_not_penalised":
            pbu = pbi = 0.0
        dU = e @ V + pu
        Uv = U
        if fault == "dV_uses_updated_U":
            Uv = U - 0.1 * dU
        dV = e.T @ Uv + pv
        return {"U": dU, "V": dV, "bu": e.sum(1) + pbu, "bi": e.sum(0) + pbi}

    return loss, params, grads, {"n": n, "m": m, "k": k}


SYSTEMS = [
    (
        "batchnorm",
        batchnorm,
        [
            "dgamma_uses_raw_x",
            "gamma_forgotten_in_dx",
            "dvar_inv_std_squared_not_cubed",
            "dvar_missing_half",
            "bessel_in_backward",
            "mean_path_dropped",
            "stats_as_constants",
        ],
    ),
    (
        "layernorm",
        layernorm,
        [
            "dgamma_mean_over_rows",
            "means_over_batch_axis",
            "gamma_left_out_of_means",
            "second_mean_is_a_sum",
            "xhat_not_multiplied_back",
            "sign_of_variance_term",
            "inplace_normalised_cache",
        ],
    ),
    (
        "attention",
        attention,
        [
            "probs_recomputed_without_mask",
            "softmax_jacobian_diagonal_only",
            "softmax_sum_over_queries",
            "scale_forgotten",
            "dk_score_not_transposed",
            "dWk_pasted_from_dWq",
            "dx_without_value_path",
        ],
    ),
    (
        "lstm_cell",
        lstm_cell,
        [
            "do_uses_c_without_tanh",
            "tanh_derivative_at_c",
            "incoming_dc_dropped",
            "df_uses_new_c",
            "forget_bias_lost_in_backward",
            "candidate_gate_as_sigmoid",
            "gate_order_ifog",
        ],
    ),
    (
        "embedding",
        embedding,
        [
            "db_mean_not_sum",
            "dpooled_after_W_update",
            "divides_by_padded_length",
            "padding_row_gets_gradient",
            "fancy_index_plus_equals",
            "repeat_in_bag_counted_once",
            "scatter_row_off_by_one",
        ],
    ),
    (
        "conv2d",
        conv2d,
        [
            "tanh_of_activation_again",
            "dx_kernel_flipped",
            "dx_channels_filters_swapped",
            "last_output_row_skipped",
            "dw_reset_for_each_sample",
            "dx_patch_overwrites",
            "dw_rotated_180",
        ],
    ),
    (
        "softmax_xent",
        softmax_xent,
        [
            "softmax_over_batch_axis",
            "normalised_by_N",
            "label_off_by_one",
            "all_rows_indexed_by_labels",
            "weight_on_onehot_only",
            "weight_forgotten",
            "weight_by_column",
        ],
    ),
    (
        "gmm",
        gmm,
        [
            "responsibilities_without_weights",
            "softmax_normaliser_forgotten",
            "dmu_over_sigma_not_squared",
            "dmu_divided_by_Nk",
            "dx_same_sign_as_dmu",
            "logdet_once_not_D_times",
            "derivative_for_sigma_not_log",
        ],
    ),
    (
        "rbf_net",
        rbf_net,
        [
            "db_target_minus_output",
            "exp_factor_forgotten",
            "dc_output_weight_forgotten",
            "width_broadcast_over_features",
            "dc_sign",
            "dx_half_kept",
            "ds_over_s_squared",
        ],
    ),
    (
        "matfac",
        matfac,
        [
            "residual_without_biases",
            "unrated_cells_count",
            "divides_by_all_cells",
            "penalty_per_rating",
            "penalty_factor_two_forgotten",
            "biases_not_penalised",
            "dV_uses_updated_U",
        ],
    ),
]

CASES = [(name, fault, partial(fn, fault=fault)) for name, fn, faults in SYSTEMS for fault in ["", *faults]]
