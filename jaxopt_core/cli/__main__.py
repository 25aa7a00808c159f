"""``python -m jaxopt_core.cli``."""

import sys

from jaxopt_core.cli import main

sys.exit(main())
