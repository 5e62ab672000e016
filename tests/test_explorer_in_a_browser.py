"""The page of `scratchvae explore` in a real browser: what it computes is what Python does, and all of it can be used.

It takes Debian's chromium, or another one that is called chromium or google-chrome, and playwright.
"""

import base64
import io

import numpy as np
import pytest
from conftest import watched
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from test_reading_in_a_browser import CONTRAST

from scratchvae import VAE, FullVB, explorer
from scratchvae.data.dataset import Data
from scratchvae.explorer.rounded import rounded

TOLERANCE = 1e-5
TOY = {"n_visible": 30, "n_hidden": 7, "n_latent": 2, "dtype": "float64"}  # images of 6 x 5
FREE = {"mean": "free"}
MODELS = {
    "one hidden layer of tanh, bernoulli": {},
    "two hidden layers of relu, gaussian": {"n_hidden": (9, 6), "activation": "relu", "likelihood": "gaussian"},
    "no hidden layer, gaussian with a free mean": {"n_hidden": (), "likelihood": "gaussian", **FREE},
    "softplus, laplace, 3 latents": {"activation": "softplus", "likelihood": "laplace", "n_latent": 3},
    "softplus, laplace with a free mean": {"activation": "softplus", "likelihood": "laplace", **FREE},
    "sigmoid, continuous bernoulli": {"activation": "sigmoid", "likelihood": "continuous-bernoulli"},
    "isotropic, 1 latent": {"likelihood": "isotropic", "n_latent": 1},
    "isotropic with a free mean": {"likelihood": "isotropic", **FREE},
    "one convolution": {"n_visible": 64, "channels": (3,), "activation": "relu"},
    "two convolutions": {"n_visible": 64, "channels": (3, 4), "n_hidden": (), "activation": "relu"},
    "a flow": {"flow": 4, "n_latent": 3},
    "full covariance": {"posterior": "full", "n_latent": 3},
    "a flow over full covariance": {"posterior": "full", "flow": 2},
    "full variational Bayes": {"full_vb": True},
    "an autoencoder": {"estimator": "autoencoder"},
    "float32": {"dtype": "float32", "n_latent": 4},
    "conditional, full covariance": {"n_classes": 3, "posterior": "full"},
    "conditional, two convolutions": {"n_classes": 3, "n_visible": 64, "channels": (3, 4), "activation": "relu"},
    "conditional, a convolution, no hidden layer": {"n_classes": 3, "n_visible": 64, "channels": (3,), "n_hidden": ()},
    "conditional, a flow, no hidden layer": {"n_classes": 3, "flow": 2, "n_hidden": (), "full_vb": True},
}


def made(full_vb=False, scale=0.6, **settings):
    """A model whose every parameter is of order one, those that start at zero too."""
    model = (FullVB if full_vb else VAE)(**TOY | settings)
    model.params.value[...] = scale * np.random.default_rng(5).standard_normal(model.params.value.size)
    return model


def images(shape=(6, 5), n=40, labels=True, binarization="grey", classes=None, told=False):
    """A data set of n test images of random pixels, with their labels behind them for a model that is told these."""
    rng = np.random.default_rng(2)
    x = rng.integers(0, 256, (n, int(np.prod(shape))), dtype=np.uint8)
    y = rng.integers(0, 3, n) if labels else None
    data = Data("toy", shape, binarization, x, x, x, y, y, y, classes)
    return data.labelled() if told else data


@pytest.fixture(scope="module")
def tab(browser):
    """One page for all tests of this file."""
    return watched(browser.new_page())


@pytest.fixture
def opened(tab, tmp_path):
    """A function of a model and its data that writes the page and shows it; nothing may be said or asked for."""
    tab.said.clear()
    tab.asked.clear()
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.emulate_media(color_scheme="light")

    def show(model, data, **settings):
        path = tmp_path / "page.html"
        explorer.write(path, model, data, **settings)
        tab.goto(path.as_uri())
        tab.wait_for_function("window.explorer")
        return tab

    yield show
    assert tab.said == []
    assert {address.partition(":")[0] for address in tab.asked} == {"file"}


def asked(page, function, rows, labels=None):
    """What a function of the page returns for each of some rows, of the class that it has if there are labels."""
    call = f"explorer.{function}(row, labels?.[k])"
    code = f"([rows, labels]) => rows.map((row, k) => {{ const y = {call}; return y?.length ? [...y] : y; }})"
    return page.evaluate(code, [np.asarray(rows, float).tolist(), None if labels is None else labels.tolist()])


def state(page, name):
    return np.array(page.evaluate(f"[...explorer.state.{name}]"))


def picture(address):
    """The pixels of a picture whose address is its content, (height, width, 3)."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"), float)


def shown(page, canvas):
    """The pixels of a canvas, (height, width, 3)."""
    return picture(page.evaluate(f"document.getElementById('{canvas}').toDataURL()"))


def samples(page):
    """The images of the samples, (20, D)."""
    found = page.evaluate("[...document.querySelectorAll('#samples canvas')].map(c => c.toDataURL())")
    return np.array([picture(address)[:, :, 0].ravel() for address in found])


def said(page, name):
    """The words of an output, with a plain minus and plain spaces."""
    return page.locator(f"#{name}").inner_text().replace("−", "-").replace("\xa0", " ")


def settled(page):
    """Wait for the next picture of the screen, on which what was moved is drawn."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.parametrize("name", MODELS)
def test_the_page_computes_what_the_model_rounded_to_float16_does(name, opened):
    model = made(**MODELS[name])
    data = images((8, 8) if model.n_visible == 64 else (6, 5), told=model.n_classes > 0)
    page = opened(model, data)
    half = rounded(model)
    z = np.random.default_rng(3).standard_normal((50, model.n_latent))
    y = np.arange(50) % 3 if model.n_classes else None
    assert_allclose(asked(page, "decode", z, y), half.decode(z, y), rtol=0, atol=TOLERANCE)
    x = data.test[:20] / 255
    told = data.pixels("test")[:20] / 255, model.labels(x)
    codes = half.encode_mean(x)
    assert_allclose(asked(page, "encode", *told), codes, rtol=0, atol=TOLERANCE * max(1, np.abs(codes).max()))
    assert_allclose(asked(page, "code", range(40)), half.encode_mean(data.test), rtol=1e-6, atol=1e-6)
    assert_allclose(asked(page, "image", range(40)), data.pixels("test") / 255, rtol=0, atol=1e-15)
    if "flow" in name:
        assert asked(page, "rate", *told) == [None] * 20 == asked(page, "spread", *told)
    elif name != "an autoencoder":
        neg_kl = half.terms(x, np.zeros((1, 20, model.n_latent)))[0]
        assert_allclose(asked(page, "rate", *told), -neg_kl, rtol=TOLERANCE)
        assert_allclose(asked(page, "spread", *told), np.exp(half.encode(x)[1] / 2), rtol=TOLERANCE)


def test_the_mean_of_a_continuous_bernoulli_is_right_near_0_and_far_from_it(opened):
    model = made(likelihood="continuous-bernoulli", n_hidden=(), n_latent=1)
    half = rounded(model)
    half.params.value[half.theta] = 0
    size = np.geomspace(1e-4, 60, 15)
    half.decoder.layers[0].b[...] = np.float16(np.concatenate([-size, [0], size[1:]]))
    page = opened(half, images())
    assert_allclose(asked(page, "decode", [[0]]), half.decode(np.zeros((1, 1))), rtol=0, atol=1e-12)
    logits = np.abs(half.decoder.layers[0].b)
    assert (logits < 0.3).sum() > 5 < (logits > 0.3).sum()


def test_a_drawing_has_the_code_that_python_gives_it_and_lies_where_the_pen_was(opened):
    model = made(n_latent=3)
    page = opened(model, images())
    canvas = page.locator("#drawing")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    pixel = box["width"] / 5
    assert box["height"] == pytest.approx(6 * pixel, abs=1)
    page.mouse.move(box["x"] + 1.5 * pixel, box["y"] + 0.5 * pixel)
    page.mouse.down()
    page.mouse.move(box["x"] + 1.5 * pixel, box["y"] + 3.5 * pixel, steps=5)
    page.mouse.up()
    page.mouse.move(box["x"] + 4.5 * pixel, box["y"] + 5.5 * pixel)  # no button is held any more
    drawing = state(page, "drawing").reshape(6, 5)
    assert_allclose(drawing[:4, 1], 1, atol=0.02)
    assert_array_equal(drawing[:, 4], 0)
    assert drawing[5].max() == 0 < drawing.sum() < 8
    z = rounded(model).encode_mean(drawing.reshape(1, 30))
    assert_allclose(state(page, "codeOfDrawing"), z[0], atol=TOLERANCE)
    assert_allclose(shown(page, "drawing-back").reshape(30, 3), 255 * rounded(model).decode(z).T * [1, 1, 1], atol=0.51)
    words = ", ".join(f"{name} = {value:.2f}" for name, value in zip(("z₁", "z₂", "z₃"), z[0], strict=True))
    rate = -rounded(model).terms(drawing.reshape(1, 30), np.zeros((1, 1, 3)))[0][0]
    assert said(page, "drawing-said") == f"{words}; its rate is {rate:,.2f} nats"
    page.locator("#drawing-here").click()
    assert_allclose(state(page, "z"), z[0], atol=TOLERANCE)
    page.locator("#clear").click()
    assert not state(page, "drawing").any()


def test_a_drawing_can_be_made_with_the_keyboard_and_begun_with_a_test_image(opened):
    data = images()
    page = opened(made(), data)
    page.locator("#pen").fill("0.5")
    page.locator("#drawing").focus()
    page.keyboard.press("ArrowUp")  # from the middle of 6 x 5, the pixel (3, 2)
    assert not state(page, "drawing").any()
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    drawing = state(page, "drawing").reshape(6, 5)
    assert_array_equal(np.argwhere(drawing == 1), [[2, 2], [2, 3]])
    page.locator("#chosen").fill("7")
    page.locator("#from-chosen").click()
    assert_allclose(state(page, "drawing"), data.test[7] / 255, atol=1e-15)


def test_a_model_of_binary_pixels_is_shown_drawings_and_images_of_them(opened):
    data = images(binarization="dynamic")
    page = opened(made(), data)
    assert {*np.unique(asked(page, "image", range(40)))} == {0, 1}
    page.locator("#pen").fill("0.3")
    page.locator("#ink").fill("0.4")
    page.locator("#drawing").focus()
    page.keyboard.press("Space")
    assert state(page, "drawing").max() == pytest.approx(0.32, abs=0.09)
    page.locator("#clear").focus()
    assert not shown(page, "drawing").any()
    assert "as the model sees it" in page.locator("#as-seen").inner_text()
    assert "drawn as Bernoulli(x)" in page.locator("footer").inner_text()


def test_in_two_dimensions_z_and_the_image_follow_the_mouse(opened):
    model = made()
    page = opened(model, images())
    box = page.locator("#plane").bounding_box()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.375 * box["height"])
    settled(page)
    z = state(page, "z")
    assert z[0] > 1 and z[1] == pytest.approx(z[0] / 2, rel=0.02)  # upwards is positive
    image = 255 * rounded(model).decode(z[None]).reshape(6, 5, 1)
    assert_allclose(shown(page, "image"), image * [1, 1, 1], atol=0.51)
    assert said(page, "here") == f"z₁ = {z[0]:.2f}, z₂ = {z[1]:.2f}"
    names = {}
    exec(page.locator("#numpy").input_value(), {"np": np}, names)
    assert_allclose(names["z"], z, atol=1e-6)


def test_a_click_on_a_point_shows_the_image_its_reconstruction_and_its_terms(opened):
    model = made()
    data = images()
    page = opened(model, data)
    k = int(page.evaluate("[...Array(40).keys()].reduce((a, k) => explorer.code(k)[0] > explorer.code(a)[0] ? k : a)"))
    box = page.locator("#plane").bounding_box()
    code = rounded(model).encode_mean(data.test)
    limit = max(3.2, 1.05 * np.abs(code).max())
    x, y = code[k] / limit / 2 * [1, -1] + 0.5
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    settled(page)
    assert page.locator("#chosen").input_value() == str(k)
    assert_array_equal(shown(page, "chosen-image")[:, :, 0], data.test[k].reshape(6, 5))
    back = 255 * rounded(model).decode(code[k : k + 1])
    assert_allclose(shown(page, "chosen-reconstruction")[:, :, 2], back.reshape(6, 5), atol=0.51)
    rows = page.locator("#terms tr").all_inner_texts()
    rate, distortion, bound = (float(row.split("\t")[1].split()[0].replace("−", "-").replace(",", "")) for row in rows)
    neg_kl, log_px = model.terms(data.test[k : k + 1], np.random.default_rng(9).standard_normal((4000, 1, 2)))
    assert rate == pytest.approx(-neg_kl[0], abs=0.006)
    assert distortion == pytest.approx(-log_px[0], rel=0.15)  # of 16 draws
    assert bound == pytest.approx(-rate - distortion, abs=0.011)


def test_the_arrow_keys_move_z_and_enter_takes_the_nearest_image(opened):
    model = made()
    data = images()
    page = opened(model, data)
    page.locator("#origin").click()
    page.locator("#plane").focus()
    page.keyboard.press("ArrowRight")
    step = state(page, "z")[0]
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert step > 0
    assert_allclose(state(page, "z"), [-step, 9 * step], atol=1e-12)
    z = state(page, "z")
    page.keyboard.press("Enter")
    codes = rounded(model).encode_mean(data.test)
    k = np.linalg.norm(codes - z, axis=1).argmin()
    assert page.locator("#chosen").input_value() == str(k)
    assert_allclose(state(page, "z"), codes[k], atol=TOLERANCE)


def test_with_more_latents_there_is_a_slider_for_each_the_largest_kl_first_and_the_inactive_folded_away(opened):
    model = made(n_latent=5)
    mu = model.encoder.layers[-2]
    mu.W[:, 1] = 0  # so that μ_1 does not depend on x
    mu.W[:, 3] *= 4
    data = images()
    page = opened(model, data)
    use = explorer.page.information(model, data.test)
    order = [j for j in np.argsort(-use.kl) if use.is_active[j]]
    names = [text[1] for text in page.locator("#sliders label span:first-child").all_inner_texts() if text[0] == "z"]
    assert names == ["₁₂₃₄₅"[j] for j in order] and len(order) < 5
    assert page.locator("#sliders label").first.inner_text().split()[1] == f"{use.kl[order[0]]:.2f}"
    assert not page.locator("#inactive label").first.is_visible()
    page.locator("#inactive-title").click()
    assert page.locator("#inactive label").first.is_visible()
    assert "z₂" in page.locator("#inactive").inner_text()
    before = state(page, "z")
    slider = page.locator("#sliders input").first
    slider.focus()
    slider.press("ArrowRight")
    settled(page)
    moved = state(page, "z") - before
    assert_array_equal(np.flatnonzero(moved), [order[0]])
    image = 255 * rounded(model).decode(state(page, "z")[None]).reshape(6, 5, 1)
    assert_allclose(shown(page, "mirror"), image * [1, 1, 1], atol=0.51)
    assert {page.locator(f"#axis-{side}").input_value() for side in (0, 1)} == {str(j) for j in order[:2]}


def test_the_axes_of_the_plane_can_be_chosen_and_a_drag_moves_these_two_alone(opened):
    page = opened(made(n_latent=4), images())
    page.locator("#axis-0").select_option("3")
    page.locator("#axis-1").select_option("0")
    before = state(page, "z")
    page.locator("#with-points").uncheck()
    box = page.locator("#plane").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    assert_array_equal(state(page, "z"), before)  # only a drag moves z where the plane does not show all of it
    page.mouse.move(middle[0] + 100, middle[1])
    page.mouse.down()
    page.mouse.move(middle[0] + 100, middle[1] + 50)
    page.mouse.up()
    z = state(page, "z")
    assert z[3] > 0 > z[0] and z[3] == pytest.approx(-2 * z[0], rel=1e-6)
    assert_array_equal(z[1:3], before[1:3])


def test_with_one_latent_there_is_a_line_and_a_slider(opened):
    page = opened(made(n_latent=1), images())
    assert page.locator("#sliders input").count() == 1
    page.locator("#origin").click()
    page.locator("#plane").focus()
    page.keyboard.press("ArrowUp")
    assert state(page, "z") == [0]
    page.keyboard.press("ArrowRight")
    assert state(page, "z") > 0
    assert not page.locator("#paths").is_visible()


def test_between_two_images_the_line_is_straight_or_keeps_the_length_of_the_codes(opened):
    model = made(n_latent=3)
    data = images()
    codes = rounded(model).encode_mean(data.test)
    page = opened(model, data)
    for letter, k in (("a", 4), ("b", 9)):
        page.locator("#chosen").fill(str(k))
        page.locator(f"#take-{letter}").click()
    assert "A is image 4" in page.locator("#between-said").inner_text()
    page.locator("#between-here").click()
    assert_allclose(state(page, "z"), codes[[4, 9]].mean(axis=0), atol=TOLERANCE)
    strip = page.locator("#strip").bounding_box()
    page.mouse.click(strip["x"] + 1, strip["y"] + 5)
    page.locator("#between-here").click()
    assert_allclose(state(page, "z"), codes[4], atol=0.05)
    code = "([way, a, b, t]) => [...explorer[way](a, b, t)]"
    a, b = [3.0, 0, 4], [0.0, 5, 0]
    for t in (0, 0.25, 0.5, 1):
        on_circle = np.array(page.evaluate(code, ["greatCircle", a, b, t]))
        assert np.linalg.norm(on_circle) == pytest.approx(5)
        assert on_circle @ a == pytest.approx(25 * np.cos(t * np.pi / 2), abs=1e-9)
        assert_allclose(page.evaluate(code, ["straight", a, b, t]), np.array(a) * (1 - t) + t * np.array(b))
    assert_allclose(page.evaluate(code, ["greatCircle", [1, 1], [2, 2], 0.5]), [1.5, 1.5])
    assert_allclose(page.evaluate(code, ["greatCircle", [0, 0], [2, 2], 0.5]), [1, 1])
    page.locator("input[value=circle]").check()
    page.locator("#t").fill("0.5")
    page.locator("#between-here").click()
    assert_allclose(
        state(page, "z"), page.evaluate(code, ["greatCircle", *codes[[4, 9]].tolist(), 0.5]), atol=TOLERANCE
    )


def test_samples_are_draws_of_the_prior_at_the_temperature_that_is_set(opened):
    model = made(n_latent=2)
    page = opened(model, images())
    first = samples(page)
    page.locator("#sample").click()
    assert (samples(page) != first).any(axis=1).all()
    page.locator("#samples button").nth(3).click()
    z = state(page, "z")
    page.locator("#temperature").fill("0.5")
    page.locator("#samples button").nth(3).click()
    assert_allclose(state(page, "z"), z / 2, atol=1e-12)
    page.locator("#temperature").fill("0")
    image = 255 * rounded(model).decode(np.zeros((1, 2)))[0]
    assert_allclose(samples(page), np.tile(image, (20, 1)), atol=0.51)
    draws = np.array(page.evaluate("[...explorer.normals(20000)]"))
    assert abs(draws.mean()) < 0.05 and abs(draws.std() - 1) < 0.03 and abs((draws**4).mean() - 3) < 0.4


@pytest.mark.parametrize("refused", [False, True])
def test_z_is_copied_and_where_there_is_no_clipboard_its_text_is_selected(refused, opened):
    write = "text => Promise.reject(new Error('no'))" if refused else "async text => { window.copied = text; }"
    page = opened(made(), images())
    page.evaluate(f"navigator.__defineGetter__('clipboard', () => ({{ writeText: {write} }}))")
    page.locator("#copy").click()
    page.wait_for_function("document.getElementById('copied').textContent !== ''")
    text = page.locator("#numpy").input_value()
    assert text.startswith("z = np.array([")
    if refused:
        assert page.evaluate("getSelection().toString()") == text
    else:
        assert page.evaluate("window.copied") == text


@pytest.mark.parametrize("settings", [{}, {"n_latent": 5, "n_classes": 3}], ids=["plane", "sliders and classes"])
def test_the_page_fits_a_telephone_and_is_easy_to_read_in_the_light_and_in_the_dark(settings, opened):
    classes = ("a", "b" * 60, "many words in the name of one class, which a narrow page has to break")
    page = opened(made(**settings), images(classes=classes, told="n_classes" in settings))
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    for width in (1280, 930, 768, 390):  # at 930 there is least room for two columns
        page.set_viewport_size({"width": width, "height": 900})
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(CONTRAST) == []
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")  # so that both were looked at


def test_the_keyboard_reaches_every_control_and_each_says_what_it_is(opened):
    page = opened(made(n_latent=4, n_classes=3), images(told=True))
    controls = (
        "[...document.querySelectorAll('button, input, select, summary, [tabindex]')].filter(e => e.checkVisibility())"
    )
    page.evaluate(
        "window.reached = new Set(); addEventListener('focusin', e => reached.add(e.target.name || e.target))"
    )
    total = page.evaluate(f"new Set({controls}.map(e => e.name || e)).size")  # the radio buttons are one stop
    assert total > 50
    outlines = []
    for _ in range(total + 1):
        page.keyboard.press("Tab")
        outlines.append(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
    assert page.evaluate("reached.size") >= total
    assert outlines.count("solid") >= total
    nameless = f"{controls}.filter(e => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()))"
    assert page.evaluate(f"{nameless}.map(e => e.outerHTML)") == []
    images_ = "[...document.querySelectorAll('canvas[role=img]')].filter(e => e.checkVisibility())"
    assert page.evaluate(f"{images_}.every(e => e.hasAttribute('aria-label') || e.hasAttribute('aria-labelledby'))")


def test_a_name_of_a_class_or_of_a_run_is_a_text_and_nothing_else(opened):
    nasty = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'> & \u2028 $style"
    page = opened(made(), images(classes=(nasty, "<!--", "b")), title=nasty)
    assert page.evaluate("window.broken") is None
    assert page.locator("#legend button").first.inner_text().startswith("</script><script>")
    assert "$style" in page.locator("#legend button").first.inner_text()
    assert "</script>" in page.locator("#facts").inner_text() and "<img" in page.title()
    assert page.locator("img").count() == 0
    policy = page.locator("meta[http-equiv]").get_attribute("content")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy


def test_a_class_can_be_looked_at_alone(opened):
    page = opened(made(), images())
    page.locator("#with-tiles").uncheck()
    all_of_them = shown(page, "plane")
    page.locator("#legend button").nth(1).click()
    assert page.locator("#legend button").nth(1).get_attribute("aria-pressed") == "true"
    assert (shown(page, "plane") != all_of_them).any()
    page.locator("#plane").focus()
    page.keyboard.press("Enter")
    assert page.locator("#chosen-label").inner_text() == "class: 1"
    page.locator("#legend button").nth(1).click()
    assert page.locator("#legend button[aria-pressed=true]").count() == 0


def test_colour_images_are_shown_in_colour_and_pens_leave_ink_in_each_colour(opened):
    model = made(n_visible=36, likelihood="gaussian")
    data = images((4, 3, 3))
    page = opened(model, data)
    assert_array_equal(shown(page, "chosen-image"), data.test[0].reshape(4, 3, 3))
    assert_allclose(shown(page, "image"), 255 * rounded(model).reconstruct(data.test[:1]).reshape(4, 3, 3), atol=0.51)
    page.locator("#drawing").focus()
    page.keyboard.press("Space")
    drawing = state(page, "drawing").reshape(4, 3, 3)
    assert drawing.any() and (drawing == drawing[:, :, :1]).all()


def test_free_numbers_are_drawn_from_their_least_to_their_largest(opened):
    model = made(likelihood="gaussian", mean="free")
    x = np.random.default_rng(1).normal(0, 3, (40, 30))
    data = Data("numbers", (6, 5), "grey", x, x, x)
    page = opened(model, data)
    low, high = page.evaluate("[explorer.model.low, explorer.model.high]")
    assert (low, high) == (x.min(), x.max())
    assert_allclose(asked(page, "image", range(40)), x, rtol=0, atol=(high - low) / 510 + 1e-9)
    assert "nearest of 256 levels from" in page.locator("footer").inner_text()
    assert page.locator("#legend button").count() == 0


def test_what_a_model_does_not_have_is_not_shown_and_the_page_says_why(opened):
    page = opened(made(estimator="autoencoder"), images())
    assert not page.locator("#prior-panel").is_visible()
    assert page.locator("#terms th").all_inner_texts() == ["distortion"]
    assert "no rate, no bound, no KL" in page.locator("footer").inner_text()
    page = opened(made(flow=2, n_latent=3), images())
    assert page.locator("#terms th").all_inner_texts() == ["rate", "distortion", "bound"]
    said = page.locator("main").inner_text()
    assert "vary most" in said and "the rate has no closed form" in said
    words = page.locator("footer").inner_text()
    assert "the KL of each latent: behind a flow they have no closed form" in words and "active" in words
    page = opened(made(full_vb=True), images())
    assert "the mean of q(θ)" in page.locator("footer").inner_text()


# A conditional model


def in_classes(page):
    """The images of this z in each class, (C, D)."""
    found = page.evaluate("[...document.querySelectorAll('#in-classes canvas')].map(c => c.toDataURL())")
    return np.array([picture(address)[:, :, 0].ravel() for address in found])


def chosen_classes(page):
    """The class that the pictures have chosen, and behind it those of the lists that can be seen."""
    code = "[...document.querySelectorAll('#in-classes :checked, .given select')].filter(e => e.checkVisibility())"
    return [int(value) for value in page.evaluate(f"{code}.map(e => e.value)")]


def assert_everything_is_of_the_class(page, model, y):
    """Look at each place of the page where an image is made, and at the code of the drawing."""
    settled(page)
    half = rounded(model)
    at_z = 255 * half.decode(state(page, "z")[None], [y])[0]
    codes = half.encode_mean(images(told=True).test)
    a, b = page.evaluate("[explorer.state.a, explorer.state.b]")
    between = 255 * half.decode((codes[a] + codes[b])[None] / 2, [y])[0]
    drawing = half.labelled(state(page, "drawing")[None].astype(float), [y])
    of_drawing = half.encode_mean(drawing)
    rate = -half.terms(drawing, np.zeros((1, 1, 3)))[0][0]
    assert page.evaluate("explorer.state.y") == y
    assert_allclose(state(page, "codeOfDrawing"), of_drawing[0], atol=TOLERANCE)
    expected = {
        "image": at_z,
        "mirror": at_z,
        "between": between,
        "drawing-back": 255 * half.decode(of_drawing, [y])[0],
    }
    for canvas, image in expected.items():
        assert_allclose(shown(page, canvas)[:, :, 0].ravel(), image, atol=0.51, err_msg=canvas)
    middle = picture(page.evaluate("document.querySelectorAll('#strip canvas')[4].toDataURL()"))
    assert_allclose(middle[:, :, 0].ravel(), between, atol=0.51)
    assert_allclose(samples(page), np.tile(255 * half.decode(np.zeros((1, 3)), [y]), (20, 1)), atol=0.51)
    assert said(page, "here").endswith(f"; y = {y}")
    assert said(page, "drawing-said").endswith(f"; its rate is {rate:,.2f} nats")
    assert chosen_classes(page) == [y] * 5  # the pictures, and a list in each of four panels


def test_the_class_is_chosen_by_keyboard_at_the_pictures_or_at_a_list_and_all_that_is_made_is_of_it(opened):
    model = made(n_latent=3, n_classes=3)
    page = opened(model, images(told=True))
    y = int(model.labels(images(told=True).test)[0])
    page.locator("#temperature").fill("0")
    page.locator("#drawing").focus()
    page.keyboard.press("Space")
    assert_everything_is_of_the_class(page, model, y)
    page.locator("#in-classes :checked").focus()
    page.keyboard.press("ArrowRight")
    assert_everything_is_of_the_class(page, model, (y + 1) % 3)
    for panel, k in (("draw-panel", 2), ("prior-panel", 0), ("sliders-panel", 1)):
        page.locator(f"#{panel} select").focus()
        page.keyboard.press(str(k))  # the first letter of its name
        assert_everything_is_of_the_class(page, model, k)


def test_this_z_is_shown_in_each_class_even_in_more_than_are_decoded_at_once(opened):
    names = tuple(f"class {k}" for k in range(23))
    model = made(n_classes=23)
    page = opened(model, images(classes=names, told=True))
    assert page.locator("#in-classes label").all_inner_texts() == list(names)
    page.locator("#plane").focus()
    for _ in range(2):
        settled(page)
        z = np.tile(state(page, "z"), (23, 1))
        assert_allclose(in_classes(page), 255 * rounded(model).decode(z, np.arange(23)), atol=0.51)
        page.keyboard.press("Shift+ArrowRight")
    assert "given one of 23 classes" in page.locator("#facts").inner_text()


def test_a_test_image_brings_its_class_wherever_one_takes_it(opened):
    model = made(n_classes=3)
    data = images(told=True)
    labels = model.labels(data.test)
    half = rounded(model)
    page = opened(model, data)

    def with_another_class_than(k):
        page.locator("#in-classes input").nth((labels[k] + 1) % 3).check()

    k = int(np.flatnonzero(labels != labels[0])[-1])
    with_another_class_than(k)
    page.locator("#chosen").fill(str(k))  # this looks at the image, and leaves z and the class
    assert page.evaluate("explorer.state.y") == (labels[k] + 1) % 3
    back = 255 * half.reconstruct(data.test[k : k + 1])[0]
    assert_allclose(shown(page, "chosen-reconstruction")[:, :, 0].ravel(), back, atol=0.51)
    assert_allclose(state(page, "spread"), np.exp(half.encode(data.test[k : k + 1])[1][0] / 2), rtol=TOLERANCE)
    for control in ("to-code", "from-chosen"):
        with_another_class_than(k)
        page.locator(f"#{control}").click()
        assert chosen_classes(page) == [labels[k]] * 4
    settled(page)
    assert_allclose(shown(page, "image")[:, :, 0].ravel(), back, atol=0.51)
    assert_allclose(state(page, "codeOfDrawing"), half.encode_mean(data.test[k : k + 1])[0], atol=TOLERANCE)
    with_another_class_than(k)
    page.locator("#plane").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("explorer.state.y") == labels[k]
    codes = half.encode_mean(data.test)
    far = int(codes[:, 0].argmax())
    with_another_class_than(far)
    box = page.locator("#plane").bounding_box()
    x, y = codes[far] / max(3.2, 1.05 * np.abs(codes).max()) / 2 * [1, -1] + 0.5
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    assert page.evaluate("[explorer.state.chosen, explorer.state.y]") == [far, labels[far]]


def test_the_map_is_of_the_class_that_was_chosen_last(opened):
    model = made(n_classes=3)
    page = opened(model, images(told=True))
    for k in (0, 1, 2):  # the map of a class is still being decoded when the next one is chosen
        page.locator("#in-classes input").nth(k).check()
    limit = page.evaluate("explorer.plane.limit")
    side = (2 * (np.arange(17) + 0.5) / 17 - 1) * limit
    z = np.stack(np.meshgrid(side, -side), axis=-1).reshape(-1, 2)
    tiles = 255 * rounded(model).decode(z, np.full(len(z), 2)).reshape(17, 17, 6, 5).swapaxes(1, 2).reshape(102, 85)
    in_time = "new Promise(done => { let n = 20; const f = () => n-- ? requestAnimationFrame(f) : done(rows); f(); })"
    page.evaluate(f"const rows = null; {in_time}")
    assert_allclose(picture(page.evaluate("explorer.plane.tiles.toDataURL()"))[:, :, 0], tiles, atol=0.51)
    begin = "for (const y of [0, 1]) explorer.plane.decodeTiles(y, () => rows[y]++);"
    assert page.evaluate(f"const rows = [0, 0]; {begin} {in_time}") == [1, 17]  # a map nobody waits for is left


def test_formulas_have_the_class_where_a_model_is_told_it_and_only_there(opened):
    page = opened(made(n_latent=3), images())
    assert page.locator("#classes, .given").evaluate_all("found => found.filter(e => e.checkVisibility()).length") == 0
    words = page.locator("main").inner_text()
    assert "E[x|z]" in words and "log p(x)." in words and "|z, y" not in words and "|x, y" not in words
    with pytest.raises(Exception, match="RangeError: the class 1 came; expected none"):
        page.evaluate("explorer.decode([0, 0, 0], 1)")
    page = opened(made(n_latent=3, n_classes=3), images(told=True))
    words = page.locator("main").inner_text()
    assert "E[x|z, y] at this z, y" in words and "log p(x|y)." in words and "q(z|x, y)" in words
    assert "E[x|z]" not in words and "q(z|x)" not in words and "p(x|z)" not in words
    for wrong in ("3", "-1", "0.5", "null"):
        with pytest.raises(Exception, match=rf"RangeError: the class {wrong} came; expected one of 0 to 2"):
            page.evaluate(f"explorer.encode(explorer.image(0), {wrong})")
    page.evaluate("navigator.__defineGetter__('clipboard', () => ({ writeText: async text => {} }))")
    page.locator("#in-classes input").nth(2).check()
    page.locator("#copy").click()
    page.wait_for_function("document.getElementById('copied').textContent.includes('model.decode(z[None], [2])')")


class Own:
    """A posterior of the user's: N(μ, I)."""

    name = "unit"

    def outputs(self, n_latent):
        return {"mu": n_latent}

    def draw(self, eps, mu):
        self.eps = eps
        return mu + eps, -0.5 * (np.log(2 * np.pi) + eps * eps).sum(axis=-1)

    def backward(self, dz, dlog_q, dneg_kl):
        return (dz.sum(axis=0),)


def test_a_posterior_of_ones_own_has_codes_from_python_and_no_drawing(opened):
    model = made(posterior=Own(), estimator="A")
    page = opened(model, images())
    assert_allclose(asked(page, "code", range(40)), rounded(model).encode_mean(images().test), rtol=1e-6)
    assert not page.locator("#draw-panel").is_visible()
    assert "unit is one of your own" in page.locator("footer").inner_text()
