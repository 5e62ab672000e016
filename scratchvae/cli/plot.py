"""scratchvae plot: draw the pictures of a run again."""

from functools import partial
from pathlib import Path

from scratchvae.arguments import whole
from scratchvae.cli.shared import (
    add_command,
    add_moved_data,
    bar_of_pictures,
    images_of_run,
    looked_at,
    place,
    resolved,
    run_options,
    use_of,
)
from scratchvae.training.run import best_of, load_model, read_history


def plot(run, seed=0, changed_data=False, **moved):
    """Draw the pictures of the run folder `run` again and print where they are.

    `seed` is that of the samples, the random walk and the pairs of images. `moved` may hold data and data_dir, where
    the data are now. With `changed_data` they may be others than in training.
    """
    from scratchvae.plots import draw_run

    whole("--seed", seed, least=0)
    run = Path(run)
    options = run_options(run) | resolved(moved)
    model = load_model(run)
    images = images_of_run(run, options, changed_data)
    with looked_at(model, options, images):
        use = use_of(model, images.valid, images.binarization, seed)
        history = read_history(run / "metrics.csv")
        bar = partial(bar_of_pictures, show=None)
        best = best_of(run) if options["keep"] == "best" else None
        kept = None if best is None else best[0]
        for path in draw_run(run / "figures", model, images, history, seed, use, bar, kept=kept):
            print(path)
    return 0


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(commands, plot, "draw the pictures of a run again", "RUN")
    p.add_argument("run", type=place, metavar="RUN", help="a run folder")
    p.add_argument("--seed", type=int, help="the seed of the samples, the random walk and the pairs (0)")
    add_moved_data(p)
