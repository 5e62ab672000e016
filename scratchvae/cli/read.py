"""scratchvae read: write the paper beside the code as pages, and show them."""

from scratchvae.cli.shared import add_command, place

READING = "runs/reading"  # where the pages go unless told otherwise
EPILOG = """examples:
  scratchvae read --open             write the pages into runs/reading and show them in the browser
  scratchvae read --out paper        write them elsewhere: they open from disk and load nothing from the network"""


def read(out=READING, open=False):
    """Write the reading into the folder `out`, and show it in a browser if `open` says so.

    The pages are built from the source that is installed, and the programs on them run while they are built, which
    takes some ten seconds.
    """
    import webbrowser

    try:
        from scratchvae import reading
    except ModuleNotFoundError as error:
        if error.name.startswith("scratchvae"):
            raise
        raise ValueError(
            f"the reading is built with {error.name}, which is not installed: pip install 'scratchvae[read]'"
        ) from None
    pages = reading.build(out)
    first = pages[0].resolve()
    print(f"{len(pages)} pages; open {first}")
    if open and not webbrowser.open(first.as_uri()):
        raise ValueError(f"no browser could be started; open {first} in one")
    return 0


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(commands, read, "write the paper beside the code, as pages for a browser", epilog=EPILOG)
    p.add_argument("--out", type=place, metavar="DIR", help="where the pages go (runs/reading)")
    p.add_argument("--open", action="store_true", help="show them in the browser")
