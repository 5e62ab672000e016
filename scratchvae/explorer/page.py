"""Puts a trained model, test images and what its latents carry into one HTML file."""

import base64
import hashlib
import html
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np

from scratchvae.arguments import rows_of, whole
from scratchvae.explorer.networks import Weights, decoder_of, encoder_of
from scratchvae.explorer.rounded import largest_change, rounded
from scratchvae.guard import guard_of
from scratchvae.inference.information import information
from scratchvae.inference.objectives import trait
from scratchvae.inference.posteriors.flow import Flow
from scratchvae.noise import standard_normal
from scratchvae.training.checkpoint import write_atomically
from scratchvae.training.loop import as_seen

HERE = Path(__file__).parent
SCRIPTS = ("data", "layers", "vae", "latents", "images", "plane", "page")  # in the order in which they run
MADE_BY = "<!-- made by scratchvae explore -->"
MOST_IMAGES = 800_000  # bytes of test images, one for each pixel
MOST = 12_000_000  # bytes of a page
DRAWS = 16  # draws of q(z|x) for the terms of an image


@dataclass(frozen=True)
class Written:
    """What `write` has written: the path, its bytes, how many test images it has of how many, and what float16 costs.

    change is max |E[x|z] of the page - E[x|z] of the model|, as `rounded.largest_change` measures it.
    """

    path: Path
    n_bytes: int
    n_images: int
    n_test: int
    change: float


def write(path, model, data, title="", use=None, images=None):
    """Write a page in which `model` can be explored to `path`, and return what was `Written`.

    path     is that of the HTML file. A file that is there is replaced if `write` made it, and is else refused.
    model    is a trained `VAE` or one of its kin, on either backend.
    data     is the `Data` that it was trained on, for a conditional model with labels behind the pixels. The page has
             the first images of the test split.
    title    is what the page calls the model, such as the name of its run; "" unless given.
    use      is what `inference.information` returned about the test images; None, the default, asks for it.
    images   is the largest number of test images on the page; None, the default, takes as many as have 0.8 MB.

    A page has less than 12 MB. A model that leaves no room for an image in it, a likelihood of the user's own, and
    parameters that are no numbers of float16 raise a ValueError.
    """
    path = Path(path)
    _require_replaceable(path)
    if images is not None:
        images = whole("images", images)
    model = model.to("numpy")
    with guard_of(model):
        rows_of("data.test", data.test, model)
    half = rounded(model)
    with model.guard.looked_at(), half.guard.looked_at():
        content = _content(model, half, data, title, use, images)
    page = _page(content, data, _given(model))
    write_atomically(path, page)
    return Written(path, len(page), content["n"], len(data.test), content["change"])


def _require_replaceable(path):
    """Raise a ValueError if there is something at `path` that `write` has not made."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file, such as {path / 'explore.html'}")
    if not path.exists():
        return
    with open(path, "rb") as file:
        if MADE_BY.encode() not in file.read(1000):
            raise ValueError(f"{path} is no page of scratchvae explore, and is not overwritten: give another name")


def _content(model, half, data, title, use, images):
    """Return all that the page is about, as a dict that JSON can hold. `half` is the rounded model."""
    weights = Weights()
    networks = {"decoder": decoder_of(half, weights), "encoder": encoder_of(half, weights)}
    n = _count(model, len(data.test), 2 * weights.size, images)
    x = as_seen(data.test, 0, data.binarization == "dynamic")
    use = information(model, x) if use is None else use
    x = x[:n]
    pixels, low, high = _bytes_of(x[:, : model.n_visible])
    codes = half.encode_mean(x)
    is_bound = trait(model.estimator, "bound", True)
    content = {
        "title": title,
        "shape": [int(side) for side in data.image_shape],
        "n_visible": model.n_visible,
        "n_latent": model.n_latent,
        "n_classes": model.n_classes,
        "n": len(x),
        "low": low,
        "high": high,
        "binary": data.binarization != "grey",
        "has_prior": is_bound,
        "kl": _finite(use.kl),
        "active": None if use.is_active is None else use.is_active.tolist(),
        "variance": _finite(codes.var(axis=0, dtype=float)),
        "change": largest_change(model, half),
        **_classes(model, data, x),
        **networks,
        "weights": _text(weights.tobytes()),
        "images": _text(zlib.compress(pixels.tobytes(), 9)),
        "codes": _text(codes.astype("<f4").tobytes()),
        "terms": _text(_terms(model, x).astype("<f4").tobytes()),
        "said": {"terms": _about_terms(model)},
    }
    return content | {"notes": _notes(model, data, use, content, x.dtype == np.uint8)}


def _count(model, n_test, n_bytes, asked):
    """Return how many test images go on the page of a model whose weights have n_bytes; `asked` is the most, or None.

    A ValueError is raised if there is no room for any.
    """
    each = model.n_visible + 4 * model.n_latent + 2 * 4 + 8  # pixels, code, terms, and its label as text
    rest = 100_000  # the program, the sentences, and the sizes of the layers
    room = int(0.75 * (MOST - rest) - n_bytes) // each  # base64 has 4 letters for 3 bytes
    if room < 1:
        raise ValueError(
            f"a page with this model would have {(n_bytes + each) / 0.75e6:.1f} MB, and has {MOST / 1e6:.0f} MB at "
            "most: train a smaller one (--hidden), or see the pictures of this one (scratchvae plot)"
        )
    return min(n_test, room, max(1, MOST_IMAGES // model.n_visible), n_test if asked is None else asked)


def _bytes_of(x):
    """Return rows x as uint8, and the numbers that 0 and 255 stand for: 0 and 1, or the ends of free numbers."""
    if x.dtype == np.uint8:
        return x, 0.0, 1.0
    low = min(0.0, float(x.min()))
    high = max(1.0, float(x.max()))
    return np.round((x - low) / (high - low) * 255).astype(np.uint8), low, high


def _classes(model, data, x):
    """Return the names of the classes, and for each of the first test images x which of them it has; None for none.

    For a conditional model they are its classes, those too that no test image has, in the order in which it reads them.
    """
    if model.n_classes:
        return {"classes": list(data.classes or map(str, range(model.n_classes))), "labels": model.labels(x).tolist()}
    if data.test_labels is None:
        return {"classes": None, "labels": None}
    if data.classes is not None:
        return {"classes": list(data.classes), "labels": data.test_labels[: len(x)].tolist()}
    values, labels = np.unique(data.test_labels, return_inverse=True)
    return {"classes": [str(value) for value in values.tolist()], "labels": labels[: len(x)].tolist()}


def _terms(model, x):
    """Return the rate and the distortion of each row of x, (n, 2), in nats, from 16 draws of q(z|x)."""
    size = max(1, model.rows_at_once() // DRAWS)
    generator = np.random.default_rng(0)
    parts = []
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        shape = (DRAWS, len(rows), model.n_latent)
        neg_kl, log_px = model.terms(rows, standard_normal(generator, shape, model.dtype, model.backend))
        parts.append(-np.stack([neg_kl, log_px], axis=1))
    return np.concatenate(parts)


def _about_terms(model):
    """Return the sentence that says where the terms of an image come from."""
    if not trait(model.estimator, "bound", True):
        return "This model is a plain autoencoder: it has no q(z|x), so there is no rate and no bound."
    if isinstance(model.encoder.posterior, Flow):
        return f"Behind a flow the rate has no closed form: both are means over {DRAWS} draws of q(z|x{_given(model)})."
    return f"The distortion is a mean over {DRAWS} draws of q(z|x{_given(model)})."


def _given(model):
    """Return what stands behind z or x in the formulas of a model that is told the class."""
    return ", y" if model.n_classes else ""


def _notes(model, data, use, content, is_exact):
    """Return the sentences at the foot of the page: what is in it, and what it cannot show and why."""
    n = content["n"]
    notes = [
        f"It has {'all' if n == len(data.test) else f'the first {n:,} of'} {len(data.test):,} test images.",
        "The weights are rounded to float16, which changes the images that the model makes of 50 random z by up to "
        f"{content['change']:.2g}. Codes and images are those of the rounded model; rate, distortion and bound are "
        "those of the model as it was trained.",
    ]
    if not is_exact:
        notes.append(
            f"The pixels are floats, shown here to the nearest of 256 levels from {content['low']:.3g} to "
            f"{content['high']:.3g}."
        )
    if data.binarization == "dynamic":
        notes.append("The model sees each pixel drawn as Bernoulli(x), and so do you: one draw of each image is here.")
    if hasattr(model, "theta_sample"):
        notes.append("The decoder is that at the mean of q(θ), and shows nothing of what q(θ) leaves open.")
    if content["encoder"] is None:
        notes.append(
            f"The posterior {model.config['posterior']} is one of your own, which this page cannot compute: the codes "
            "are those that Python gave, and there is no drawing."
        )
    if content["has_prior"]:
        words = {"kl": "the KL of each latent", "active": "which latents are active"}
        notes += [f"It does not show {words[name]}: {use.missing[name]}." for name in words if name in use.missing]
    else:
        notes.append(
            "A plain autoencoder learns neither a q(z|x) nor which z to expect: there is no rate, no bound, no KL of a "
            "latent, and no sample."
        )
    if note := getattr(model.likelihood, "note", None):
        notes.append(f"{note[0].upper()}{note[1:]}.")
    return [
        *notes,
        "At the console, explorer.decode and explorer.encode are the functions of this page; see its source.",
    ]


def _finite(numbers):
    """Return numbers as a list in which None stands for what is not finite; None stays None."""
    if numbers is None or not np.isfinite(numbers).all():
        return None
    return np.asarray(numbers, float).tolist()


def _text(content):
    """Return bytes in base64."""
    return base64.b64encode(content).decode("ascii")


def _page(content, data, given):
    """Return the page as bytes; `given` is that of `_given`."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = "\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
    size = " x ".join(str(side) for side in content["shape"])
    told = f", given one of {len(content['classes'])} classes" if given else ""
    facts = (
        f"{data.name}, {size} pixels, {content['n_latent']} latents{told}; "
        f"{content['n']:,} of {len(data.test):,} test images"
    )
    title = content["title"] or data.name
    page = Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        made_by=MADE_BY,
        policy=f"{policy}base-uri 'none'; form-action 'none'",
        title=html.escape(f"{title} - scratchvae explore"),
        given=given,
        told="|y" if given else "",
        facts=html.escape(f"{title}: {facts}" if content["title"] else facts),
        style=style,
        model=json.dumps(content, allow_nan=False).replace("<", "\\u003c"),  # no name can end the element
        script=script,
    )
    return page.encode()


def _digest(text):
    """Return what a Content-Security-Policy calls a text that stands in the page."""
    return f"'sha256-{_text(hashlib.sha256(text.encode()).digest())}'"
