"""Rounds a model to float16, in which a page holds its weights, and measures what that costs."""

import copy

import numpy as np

LARGEST = float(np.finfo(np.float16).max)
CODES = 50  # random z at which the images of two models are compared


def rounded(model):
    """Return a copy of a model whose every parameter is the float16 nearest to that of the model.

    The model itself stays as it is, and so does the dtype. A parameter that is not finite, or too large for float16,
    raises a ValueError.
    """
    for name, array in model.params.named(model.params.value).items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite: expected a model that was trained without an accident")
        if np.abs(array).max(initial=0) > LARGEST:
            raise ValueError(
                f"{name} has a number of size {np.abs(array).max():.3g}, and a page holds weights in float16, up to "
                f"{LARGEST:.0f}: see the model in Python"
            )
    model = copy.deepcopy(model)
    model.params.value[...] = model.params.value.astype(np.float16)
    return model


def largest_change(model, other):
    """Return max |E[x|z] of one model - E[x|z] of the other|, over the pixels of 50 codes z ~ N(0, I).

    A conditional model has the classes in turn.
    """
    z = np.random.default_rng(0).standard_normal((CODES, model.n_latent))
    y = np.arange(CODES) % model.n_classes if model.n_classes else None
    return float(np.abs(model.decode(z, y) - other.decode(z, y)).max())
