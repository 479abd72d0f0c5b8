"""The records, by family of operations."""

from __future__ import annotations

from importlib import import_module

FAMILIES = (
    "attention",
    "contraction",
    "convolution",
    "movement",
    "normalization",
    "parameters",
    "pointwise",
    "pooling",
    "recurrent",
    "reduction",
    "scattering",
    "selection",
    "values",
    "vision",
)


def load() -> None:
    """Import every family, which registers its records."""
    for family in FAMILIES:
        import_module(f"{__name__}.{family}")
