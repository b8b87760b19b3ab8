"""`python -m minigraph` is the `minigraph` command."""

import sys

from minigraph.cli import main

sys.exit(main())
