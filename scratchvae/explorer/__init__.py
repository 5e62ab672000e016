"""One HTML file in which a trained VAE can be explored in a browser, without a network and without Python.

The file carries the encoder and the decoder, some test images and their codes. What it shows is computed in it, by
JavaScript that stands beside the Python of this package, function by function:

    rounded.py      rounds a model to float16, and measures by how much that changes its images
    networks.py     says which layers the networks of a model have, and lays their weights one after another
    page.py         puts the networks, the images and what the latents carry into one file
    layers.js       what nets/layers.py and nets/conv.py compute forward
    vae.js          the posteriors' codes, and the likelihoods' means: `encode` and `decode`
    latents.js      what one does with codes: lines between two, draws of the prior, text for NumPy
    images.js       rows of pixels on a canvas, and a pen
    plane.js        the plane of two latents, with the codes of the test images
    page.js         the panels of the page, and what happens when one touches them
    page.html       the sentences of the page
    page.css        how they look

`write` is all that one needs from here; `scratchvae explore` calls it for a run.
"""

from scratchvae.explorer.page import Written, write

__all__ = ["Written", "write"]
