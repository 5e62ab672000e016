"""scratchvae explore: write a page in which a trained model can be explored in a browser."""

from pathlib import Path

from scratchvae import explorer
from scratchvae.cli.shared import (
    add_command,
    add_moved_data,
    count,
    images_of_run,
    looked_at,
    place,
    resolved,
    run_options,
    use_of,
)
from scratchvae.training.run import load_model

EPILOG = """examples:
  scratchvae explore runs/mnist2 --open        write runs/mnist2/explore.html and show it in the browser
  scratchvae explore runs/mnist2 --out a.html  write it elsewhere: it is one file, and loads nothing from the network"""


def explore(run, out=None, images=None, open=False, changed_data=False, **moved):
    """Write the page of the run folder `run` to `out`, explore.html in that folder unless given, and print a sentence.

    `images` is the largest number of test images in it. With `open` the page is shown in a browser. `moved` may hold
    data and data_dir, where the data are now. With `changed_data` they may be others than in training.
    """
    import webbrowser

    if images is not None and images < 1:
        raise ValueError(f"--images is {images}; expected a whole number ≥ 1")
    run = Path(run)
    options = run_options(run) | resolved(moved)
    model = load_model(run)
    data = images_of_run(run, options, changed_data)
    with looked_at(model, options, data):
        use = use_of(model, data.test, data.binarization, 0)
        page = explorer.write(out or run / "explore.html", model, data, str(run), use, images)
    print(
        f"wrote {page.path}: {page.n_bytes / 1e6:.1f} MB, {page.n_images:,} of {page.n_test:,} test images; float16 "
        f"changes the images by up to {page.change:.2g}"
    )
    address = page.path.resolve()
    if open and not webbrowser.open(address.as_uri()):
        raise ValueError(f"no browser could be started; open {address} in one")
    return 0


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(commands, explore, "write a page to explore a trained model in a browser", "RUN", epilog=EPILOG)
    p.add_argument("run", type=place, metavar="RUN", help="a run folder")
    p.add_argument("--out", type=place, metavar="FILE", help="where the page goes (explore.html in the run folder)")
    p.add_argument("--images", type=count, metavar="N", help="at most so many test images; as many as have 0.8 MB")
    p.add_argument("--open", action="store_true", help="show it in the browser")
    add_moved_data(p)
