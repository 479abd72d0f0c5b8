"""The digest of a JSON value."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest_of_json(value: Any) -> str:
    """SHA-256 of a JSON value, keys sorted, in hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
