"""`python -m codec` is the command `codec`."""

import sys

from codec.cli import main

if __name__ == "__main__":
    sys.exit(main())
