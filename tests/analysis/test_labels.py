"""Classes and roles of tokens."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from rlprune.analysis import CLASSES, ROLES, token_labels
from rlprune.errors import ConfigError, DataError

STDLIB = Path(sysconfig.get_paths()["stdlib"])

PROGRAMS = {
    "python": '"""Tée."""\n# é注\ndef f(self, x: int = 3, *rest):\n    """Doc."""\n'
    '    return self.g(x, key=f"é{x}{x!r}").h + 0x1F\n',
    "java": "/** Tée. */ class A { int f(String s, int... rest) { // é注\n"
    '  String q = "é"; return this.g(s, 3).h; } }',
    "go": "package p\n// é注\nfunc (r *T) f(s string, n int) error {\n"
    '  q := "é"; return r.g(s, 3).h }',
    "javascript": "function f(s, n = 3, ...rest) { /* é注 */ let q = `é${s}`; return s.g(n).h }",
}


def found(language: str) -> dict[str, list[tuple[str, str]]]:
    source = PROGRAMS[language]
    labels: dict[str, list[tuple[str, str]]] = {}
    for start, end, kind, role in token_labels(source, language):
        labels.setdefault(source[start:end], []).append((kind, role))
    return labels


@pytest.mark.parametrize("language", PROGRAMS)
def test_tokens_are_in_order_and_cover_all_but_blanks(language: str) -> None:
    source = PROGRAMS[language]
    labels = token_labels(source, language)
    rest = list(source)
    last = 0
    for start, end, kind, role in labels:
        assert last <= start < end
        last = end
        rest[start:end] = " " * (end - start)
        assert kind in CLASSES
        assert role in (*ROLES, "")
    assert not "".join(rest).strip()


@pytest.mark.parametrize("language", PROGRAMS)
def test_roles_come_from_the_parent(language: str) -> None:
    labels = found(language)
    assert labels["f"] == [("NAME", "definition")]
    assert labels["g"] == [("NAME", "call")]
    assert labels["h"] == [("NAME", "attribute")]
    assert labels["3"] == [("NUMBER", "")]
    parameter = "x" if language == "python" else "s"
    assert labels[parameter][0] == ("NAME", "parameter")
    assert labels[parameter][-1] == ("NAME", "")
    if language != "go":
        assert labels["rest"] == [("NAME", "parameter")]
    if language == "go":
        assert labels["n"] == [("NAME", "parameter")]
        assert labels["string"] == [("NAME", "type")]
    if language == "java":
        assert ("KEYWORD", "type") in labels["int"]
        assert labels["/** Tée. */"] == [("COMMENT", "docstring")]


def test_python_strings_are_whole_and_docstrings_apart() -> None:
    labels = found("python")
    assert labels['"""Tée."""'] == labels['"""Doc."""'] == [("STRING", "docstring")]
    assert labels['f"é{x}{x!r}"'] == [("STRING", "string")]
    assert labels["key"] == [("NAME", "argument")]
    assert labels["int"] == [("NAME", "type")]


@pytest.mark.parametrize("name", ["argparse.py", "dataclasses.py", "locale.py"])
def test_the_standard_library_agrees_with_ast(name: str) -> None:
    source = (STDLIB / name).read_text(encoding="utf-8")
    tree = ast.parse(source)
    labels = token_labels(source, "python")
    count = Counter(role for _, _, _, role in labels)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    assert count["definition"] == sum(isinstance(node, kinds) for node in ast.walk(tree))
    arguments = [node for node in ast.walk(tree) if isinstance(node, ast.arg)]
    assert count["parameter"] == len(arguments)
    with_docs = [n for n in ast.walk(tree) if isinstance(n, (*kinds, ast.Module))]
    assert count["docstring"] == sum(ast.get_docstring(n) is not None for n in with_docs)
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inside = {id(part) for string in strings for part in ast.walk(string)}
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and id(n) not in inside]
    assert count["call"] == sum(isinstance(n.func, (ast.Name, ast.Attribute)) for n in calls)
    assert token_labels(source, "python", roles=False) == [(*i[:3], "") for i in labels]


def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'cobol' is unknown"):
        token_labels("", "cobol")
    with pytest.raises(DataError, match="no Python"):
        token_labels("def f(:\n  '''", "python")
    assert token_labels("class { ]", "java")
    monkeypatch.setitem(sys.modules, "tree_sitter_go", None)
    with pytest.raises(ConfigError, match=r"rlprune\[analysis\]"):
        token_labels("package p", "go")
