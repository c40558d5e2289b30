"""`python -m clasp_lib` is `clasp`."""

import sys

from clasp_lib.cli import main

sys.exit(main())
