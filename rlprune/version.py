"""Which rlprune this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("rlprune")
except PackageNotFoundError:  # run from a checkout that was not installed
    VERSION = "0.0.0"
