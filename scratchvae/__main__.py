"""python -m scratchvae: the command line."""

from scratchvae.cli import program

program()
