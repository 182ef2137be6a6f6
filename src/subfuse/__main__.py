"""`python -m subfuse` is the `subfuse` command."""

import sys

from subfuse.cli import main

if __name__ == "__main__":
    sys.exit(main())
