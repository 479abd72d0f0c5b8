"""What the tokens of a program are: class and role of every token of source code."""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Callable
from itertools import accumulate

from rlprune.errors import ConfigError, DataError

Label = tuple[int, int, str, str]
"""``(start, end, class, role)``, in characters."""

CLASSES = ("COMMENT", "KEYWORD", "NAME", "NUMBER", "OPERATOR", "STRING")
"""Classes of tokens."""
ROLES = ("definition", "call", "parameter", "argument", "attribute", "type", "docstring", "string")
"""Roles of tokens; tokens with none of them have the role ``""``."""
LANGUAGES = ("python", "java", "go", "javascript")
"""Languages that are read."""

_SKIPPED = {
    tokenize.ENCODING, tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip
_CONSTANTS = {"True", "False", "None"}


def token_labels(source: str, language: str, roles: bool = True) -> list[Label]:
    """Class and role of every token of a program.

    Python is cut into tokens by the standard library's ``tokenize``, other languages by
    tree-sitter. Roles come from the parent of a token in tree-sitter's tree and need the extra
    ``rlprune[analysis]``. A string is one token, whatever is interpolated in it.

    Args:
        source: the program.
        language: one of :data:`LANGUAGES`.
        roles: whether roles are wanted; without them they are all ``""``.

    Returns:
        ``(start, end, class, role)`` in ascending order, positions in characters; class is one of
        :data:`CLASSES`, role one of :data:`ROLES` or ``""``.

    Raises:
        ConfigError: The language is unknown, or a parser that is needed is not installed.
        DataError: Python source that cannot be cut into tokens; says where.
    """
    if language not in LANGUAGES:
        raise ConfigError(f"language {language!r} is unknown; choose {', '.join(LANGUAGES)}")
    if language == "python":
        tokens = _python(source)
        if not roles:
            return [(start, end, kind, "") for start, end, kind in tokens]
    from rlprune.analysis.trees import parsed

    leaves = parsed(source, language)
    if language != "python":
        return [(a, b, kind, role if roles else "") for a, b, kind, role in leaves]
    known = {start: role for start, _, _, role in leaves}
    return [(start, end, kind, known.get(start, "")) for start, end, kind in tokens]


def _python(source: str) -> list[tuple[int, int, str]]:
    offset = _offsets(source)
    found: list[tuple[int, int, str]] = []
    depth, opened = 0, 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(source, newline="").readline):
            name = tokenize.tok_name[token.type]
            start, end = offset(*token.start), offset(*token.end)
            if name.endswith("STRING_START"):  # f-strings are several tokens from Python 3.12 on
                opened = start if depth == 0 else opened
                depth += 1
            elif name.endswith("STRING_END"):
                depth -= 1
                if depth == 0:
                    found.append((opened, end, "STRING"))
            elif depth == 0 and token.type not in _SKIPPED and start < end:
                found.append((start, end, _class(name, token.string)))
    except (tokenize.TokenError, SyntaxError) as error:
        raise DataError(f"this is no Python that can be cut into tokens: {error}") from error
    return found


def _class(name: str, text: str) -> str:
    if name == "NAME":
        return "KEYWORD" if keyword.iskeyword(text) or text in _CONSTANTS else "NAME"
    return name if name in CLASSES else "OPERATOR"


def _offsets(source: str) -> Callable[[int, int], int]:
    starts = [0, *accumulate(map(len, io.StringIO(source, newline="")))]

    def offset(line: int, column: int) -> int:
        return min(starts[min(line, len(starts)) - 1] + column, len(source))

    return offset
