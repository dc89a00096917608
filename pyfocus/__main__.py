"""``python -m pyfocus``: the same as the command ``pyfocus``."""

import sys

from .cli import main

sys.exit(main())
