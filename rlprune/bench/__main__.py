"""``python -m rlprune.bench NAME [overrides]``."""

from __future__ import annotations

import sys

from rlprune.bench import main
from rlprune.errors import RlpruneError

if __name__ == "__main__":
    try:
        main()
    except RlpruneError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(1)
