"""``python -m chipcore``, the command line."""

import sys

from chipcore.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
