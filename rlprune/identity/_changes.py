"""What differs between two descriptions, in words."""

from __future__ import annotations

import re
from typing import Any

_DIGEST = re.compile(r"[0-9a-f]{16,64}")
_LONGEST = 60


def changes(before: Any, now: Any, at: str = "") -> list[str]:
    """The causes for which a stored result does not belong to what is asked for.

    Args:
        before: A description (see :func:`rlprune.identity.describe`), as stored.
        now: The description of what is asked for.
        at: Dotted path of both.

    Returns:
        One line per difference, such as ``budgets.energy.closure.volts 1 -> 2`` or
        ``data.train.x.content changed``; none when the descriptions are equal.
    """
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict) and before.get("@") == now.get("@"):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return [line for k in keys for line in changes(before.get(k), now.get(k), _join(at, k))]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        if any(isinstance(item, (dict, list)) for item in before):
            return [line for i, (b, n) in pairs for line in changes(b, n, _join(at, str(i)))]
    if _is_digest(before) and _is_digest(now):
        return [f"{at} changed"]
    return [f"{at} {_shown(before)} -> {_shown(now)}"]


def _join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "@" in value:
        kind = value["@"]
        return f"{kind} {value['name']}" if isinstance(value.get("name"), str) else str(kind)
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
