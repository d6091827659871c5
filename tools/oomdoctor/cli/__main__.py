"""``python -m oomdoctor.cli``."""

import sys

from oomdoctor.cli import main

sys.exit(main())
