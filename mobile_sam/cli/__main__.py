"""`python -m mobile_sam.cli`."""

import sys

from mobile_sam.cli import main

sys.exit(main())
