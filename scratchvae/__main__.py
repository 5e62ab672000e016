"""python -m scratchvae: the command line."""

import sys

from scratchvae.cli import main

sys.exit(main())
