"""`python -m kbench` is the `kbench` command."""

import sys

from kbench.cli.main import main

sys.exit(main())
