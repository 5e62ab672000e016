"""Random samples from the prior after 1,000 and 10,000 images, 1 and 50 epochs, at 20 and at 2 latents."""

from stages import panels
from study import command

from scratchvae import plots


def draw(ax, model, data):
    """A hundred samples."""
    plots.samples(ax, model, data.image_shape)


if __name__ == "__main__":
    command(lambda: panels("samples", draw, (9, 9.5), "E[x|z] at z ~ N(0, I)"))
