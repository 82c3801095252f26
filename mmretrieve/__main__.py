"""`python -m mmretrieve`, the same as the `mmretrieve` command."""

import sys

from mmretrieve.cli.main import main

sys.exit(main())
