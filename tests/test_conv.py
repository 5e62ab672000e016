"""nets/conv.py: convolutions, forward against definitions, backward against the oracle."""

import numpy as np
import pytest
from conftest import relative, rows
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import correlate2d

from scratchvae import VAE, Adam, FullVB, fit, load_model, oracle
from scratchvae.gradcheck import check_layer, check_model
from scratchvae.nets.conv import Conv2d, ConvTranspose2d
from scratchvae.nets.params import Params

SHAPES = [  # (H, W, C), C', kernel, stride, padding: odd sizes, and pixels that no patch reaches
    ((5, 4, 2), 3, 3, 1, 0),
    ((5, 4, 2), 3, 3, 2, 1),
    ((7, 7, 1), 2, 4, 2, 1),
    ((8, 6, 3), 1, 4, 2, 1),
    ((6, 5, 1), 2, 2, 3, 2),
    ((9, 8, 2), 2, 1, 2, 0),
    ((5, 7, 1), 4, 5, 1, 2),
    ((3, 3, 2), 2, 3, 3, 0),
]


def laid(layer, seed=0):
    params = Params([layer], np.float64)
    params.value[...] = np.random.default_rng(seed).standard_normal(params.value.size)
    return layer


@pytest.mark.parametrize(("shape", "n_out", "size", "stride", "padding"), SHAPES)
def test_convolution_and_its_backward_equal_the_oracle(shape, n_out, size, stride, padding):
    def convolved(arrays, x):
        return oracle.convolution(arrays, "c", x.reshape(2, *shape), size, stride, padding).reshape(2, -1)

    x = np.random.default_rng(1).standard_normal((2, np.prod(shape)))
    checks = check_layer(Conv2d("c", shape, n_out, size, stride, padding), x, oracle=convolved)
    assert len(checks) == 4 and checks  # value, W, b, x


@pytest.mark.parametrize(("shape", "n_out", "size", "stride", "padding"), SHAPES)
def test_transposed_convolution_and_its_backward_equal_the_oracle(shape, n_out, size, stride, padding):
    layer = ConvTranspose2d("c", n_out, shape, size, stride, padding)

    def transposed(arrays, x):
        y = oracle.transposed_convolution(arrays, "c", x.reshape(2, *layer.in_shape), shape, size, stride, padding)
        return y.reshape(2, -1)

    x = np.random.default_rng(1).standard_normal((2, np.prod(layer.in_shape)))
    checks = check_layer(layer, x, oracle=transposed)
    assert len(checks) == 4 and checks


def test_with_stride_one_it_is_scipys_correlation():
    layer = laid(Conv2d("c", (7, 6, 2), 3, 3, 1, 1))
    x = np.random.default_rng(1).standard_normal((4, 7, 6, 2))
    y, W = layer.forward(x.reshape(4, -1)).reshape(4, 7, 6, 3), layer.W.reshape(3, 3, 2, 3)
    for m in range(4):
        for o in range(3):
            expected = sum(correlate2d(x[m, :, :, c], W[:, :, c, o], "same") for c in range(2)) + layer.b[o]
            assert_allclose(y[m, :, :, o], expected, atol=1e-12)


@pytest.mark.parametrize(("shape", "n_out", "size", "stride", "padding"), SHAPES)
def test_one_is_the_transpose_of_the_other(shape, n_out, size, stride, padding):
    """⟨conv(x), y⟩ = ⟨x, convᵀ(y)⟩ for the same W, without b."""
    there = laid(Conv2d("c", shape, n_out, size, stride, padding))
    back = laid(ConvTranspose2d("c", n_out, shape, size, stride, padding))
    back.W[...] = there.W
    there.b[...], back.b[...] = 0, 0
    x, y = (
        np.random.default_rng(k).standard_normal((3, n))
        for k, n in enumerate((np.prod(shape), np.prod(there.out_shape)))
    )
    assert there.out_shape == back.in_shape
    assert_allclose((there.forward(x) * y).sum(), (x * back.forward(y)).sum(), rtol=1e-12)


def test_a_moved_image_gives_a_moved_map():
    layer = laid(Conv2d("c", (12, 12, 1), 2, 4, 2, 1))
    x = np.zeros((12, 12))
    x[4:7, 3:8] = np.random.default_rng(0).standard_normal((3, 5))
    moved = np.roll(x, (2, 2), axis=(0, 1))
    one, other = (layer.forward(image.reshape(1, -1)).reshape(6, 6, 2) for image in (x, moved))
    assert_allclose(other[1:, 1:], one[:-1, :-1], atol=1e-12)


@pytest.mark.parametrize("side", [6, 7])
def test_six_and_seven_pixels_both_become_three_and_come_back(side):
    layer = laid(ConvTranspose2d("c", 2, (side, side, 1), 4, 2, 1))
    assert layer.in_shape == (3, 3, 2)
    assert layer.forward(np.ones((3, 18))).shape == (3, side * side)


def test_a_frozen_layer_leaves_its_gradient_alone():
    for layer in (Conv2d("c", (5, 5, 1), 2, 3), ConvTranspose2d("c", 2, (5, 5, 1), 3)):
        laid(layer)
        n_in, n_out = (25, 18) if isinstance(layer, Conv2d) else (18, 25)
        layer.forward(np.ones((2, n_in)))
        layer.dW[...], layer.db[...], layer.frozen = 7, 7, True
        assert layer.backward(np.ones((2, n_out))).shape == (2, n_in)
        assert (layer.dW == 7).all() and (layer.db == 7).all()


def conv_vae(**settings):
    return VAE(**{"n_visible": 49, "n_hidden": 5, "n_latent": 2, "channels": (3, 2), "dtype": "float64"} | settings)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "isotropic"])
@pytest.mark.parametrize(
    ("n_visible", "channels", "n_hidden"), [(49, (3, 2), 5), (64, (2,), ()), (81, (2, 3, 2), (5, 4))]
)
def test_bound_and_every_gradient_of_a_convolutional_vae_equal_the_oracle(likelihood, n_visible, channels, n_hidden):
    settings = {"n_visible": n_visible, "channels": channels, "n_hidden": n_hidden, "likelihood": likelihood}
    checks = check_model(conv_vae(**settings), rows(3, n_visible))
    assert checks
    assert len([check for check in checks if ".conv" in check.name]) == 4 * len(channels) - 2


def test_a_layer_for_every_channel_and_the_images_have_the_size_of_the_data():
    model = conv_vae(n_visible=784, channels=(4, 8))
    shapes = {name: shape for name, (_, shape) in model.params.windows.items() if name.endswith("W")}
    assert shapes["encoder.conv1.W"] == (16, 4) and shapes["encoder.conv2.W"] == (64, 8)
    assert shapes["encoder.hidden.W"] == (7 * 7 * 8, 5) and shapes["decoder.hidden2.W"] == (5, 7 * 7 * 8)
    assert shapes["decoder.conv2.W"] == (64, 8) and shapes["decoder.logits.W"] == (16, 4)
    assert model.sample(3).shape == (3, 784)
    assert model.encoder.layers[0].reads_data  # nobody needs the gradient of the pixels


def test_it_trains_resumes_alike_on_both_backends_and_in_float32(waits, tmp_path):
    x = rows(40, 49).astype("float32")
    models = [conv_vae(dtype="float32", init="glorot", backend=backend) for backend in ("numpy", "cupy")]
    histories = [fit(model, x, x, samples=400, batch_size=10, log_every=100) for model in models]
    assert_array_equal(models[1].params.value.get(), models[0].params.value)
    assert histories[0]["valid_bound"][-1] > histories[0]["valid_bound"][0]
    fit(conv_vae(dtype="float32", init="glorot"), x, x, samples=200, batch_size=10, log_every=100, out=tmp_path)
    again = conv_vae(dtype="float32", init="glorot")
    fit(again, x, x, samples=400, batch_size=10, log_every=100, out=tmp_path, resume=True)
    assert_array_equal(again.params.value, models[0].params.value)
    assert_array_equal(load_model(tmp_path).encode_mean(x), again.encode_mean(x))
    for layer in models[0].encoder.layers:
        assert getattr(layer, "rows", x).dtype == np.float32


def test_digits_are_learned_through_convolutions(digits):
    model = VAE(64, 32, 2, channels=(8, 16), activation="relu", init="glorot")
    history = fit(model, digits.train, digits.valid, optimizer=Adam(0.002), samples=20_000)
    assert history["valid_bound"][-1] > -29  # seeds 0 to 2: -27.2, -27.2, -26.6; the mean digit has -33


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conv_vae(n_visible=560), "n_visible is 560; expected a square number for channels"),
        (lambda: conv_vae(channels=(0,)), "channels is 0; expected a whole number ≥ 1"),
        (lambda: conv_vae(channels=(2, 2, 2, 2)), "channels is [2, 2, 2, 2]; these images can be halved 2 times"),
        (lambda: Conv2d("c", (5, 5, 1), 2, 7), "kernel 7, stride 1, padding 0 do not fit images of 5 x 5"),
        (
            lambda: Conv2d("c", (5, 5, 1), 2, 6),
            "kernel 6, stride 1, padding 0 do not fit images of 5 x 5",
        ),  # 0 positions
        (lambda: Conv2d("c", (9, 5, 1), 2, 6), "kernel 6, stride 1, padding 0 do not fit images of 9 x 5"),
        (lambda: Conv2d("c", (5, 5, 1), 2, 3, 0), "stride 0"),
        (lambda: Conv2d("c", (5, 5, 1), 2, 0), "kernel 0"),
        (lambda: Conv2d("c", (5, 5, 1), 2, 1, 1, -1), "padding -1"),
        (lambda: FullVB(49, 5, 2, channels=(2,), theta_noise="local"), "for affine maps alone"),
    ],
)
def test_what_has_no_convolution_is_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


def test_full_vb_has_a_posterior_over_kernels_too():
    model = FullVB(49, 5, 2, channels=(2,), dtype="float64")
    assert check_model(model, rows(3, 49))
    assert relative(model.theta_sample(1).decode(np.ones((2, 2))), model.decode(np.ones((2, 2)))) > 1e-6
