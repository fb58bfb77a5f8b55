"""`python -m blockviz COMMAND`."""

import sys

from blockviz.cli import main

sys.exit(main())
