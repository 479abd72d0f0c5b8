"""``python -m rlprune``."""

from __future__ import annotations

from rlprune.cli import main

if __name__ == "__main__":
    main()
