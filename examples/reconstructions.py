"""Test images and their reconstructions after 1,000 and 10,000 images, 1 and 50 epochs, at 20 and at 2 latents."""

from stages import panels
from study import command

from scratchvae import plots


def draw(ax, model, data):
    """Thirty test images, each with its reconstruction under it."""
    plots.reconstructions(ax, data.test[:30], model.reconstruct(data.test[:30]), data.image_shape)


if __name__ == "__main__":
    command(lambda: panels("reconstructions", draw, (10, 6), "originals, and under them their reconstructions"))
