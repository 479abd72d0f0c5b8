"""Tokens and their roles from tree-sitter's syntax trees (extra ``rlprune[analysis]``)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlprune.errors import ConfigError

if TYPE_CHECKING:
    from rlprune.analysis.labels import Label

_NUMBERS = {
    "integer", "float", "number", "int_literal", "float_literal", "imaginary_literal",
    "decimal_integer_literal", "hex_integer_literal", "octal_integer_literal",
    "binary_integer_literal", "decimal_floating_point_literal", "hex_floating_point_literal",
}  # fmt: skip
_STRINGS = {
    "string", "string_literal", "character_literal", "interpreted_string_literal",
    "raw_string_literal", "rune_literal", "template_string", "concatenated_string", "regex",
}  # fmt: skip
_WORDS = {
    "true", "false", "none", "null", "nil", "null_literal", "this", "super", "void_type",
    "boolean_type", "undefined", "iota",
}  # fmt: skip
_TYPES = {"type_identifier", "integral_type", "floating_point_type", "void_type", "boolean_type"}
_DEFINITIONS = {
    "function_definition", "class_definition", "method_declaration", "class_declaration",
    "interface_declaration", "enum_declaration", "record_declaration", "constructor_declaration",
    "function_declaration", "type_spec", "method_definition", "generator_function_declaration",
    "annotation_type_declaration",
}  # fmt: skip
_MEMBERS = {
    ("attribute", "attribute"), ("member_expression", "property"), ("selector_expression", "field"),
    ("field_access", "field"),
}  # fmt: skip
_PARAMETERS = {
    ("parameters", None), ("lambda_parameters", None), ("typed_parameter", None),
    ("default_parameter", "name"), ("typed_default_parameter", "name"),
    ("formal_parameter", "name"), ("formal_parameters", None), ("parameter_declaration", "name"),
    ("arrow_function", "parameter"),
    ("variadic_parameter_declaration", "name"),
    ("inferred_parameters", None),
}  # fmt: skip
_WRAPPED = {
    ("list_splat_pattern", None), ("dictionary_splat_pattern", None), ("rest_pattern", None),
    ("assignment_pattern", "left"), ("variable_declarator", "name"),
}  # fmt: skip
_LISTS = {
    "parameters", "lambda_parameters", "formal_parameters", "typed_parameter", "spread_parameter",
}  # fmt: skip
_CALLS = {("call", "function"), ("call_expression", "function"), ("method_invocation", "name")}


def parsed(source: str, language: str) -> list[Label]:
    """Every token of a program with its class and role; broken programs are read as far as can be.

    Args:
        source: the program.
        language: "python", "java", "go" or "javascript".

    Returns:
        See :func:`rlprune.analysis.token_labels`.

    Raises:
        ConfigError: tree-sitter or the language's grammar is not installed.
    """
    text = source.encode("utf-8", "surrogatepass")
    tree = _parser(language).parse(text)
    at = _characters(source)
    found: list[Label] = []
    cursor = tree.walk()
    path: list[tuple[Any, str | None]] = []
    while True:
        node = cursor.node
        path.append((node, cursor.field_name))
        whole = node.type in _STRINGS or not node.child_count
        if whole and node.start_byte < node.end_byte:
            kind = _class(node)
            found.append((at[node.start_byte], at[node.end_byte], kind, _role(path, kind, text)))
        if not whole and cursor.goto_first_child():
            continue
        path.pop()
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return [label for label in found if source[label[0] : label[1]].strip()]
            path.pop()


def _parser(language: str) -> Any:
    try:
        tree_sitter = import_module("tree_sitter")
        grammar = import_module(f"tree_sitter_{language}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"reading {language} needs the package {error.name!r}; install rlprune[analysis]"
        ) from error
    return tree_sitter.Parser(tree_sitter.Language(grammar.language()))


def _characters(source: str) -> list[int]:
    """Character position of every byte position."""
    if source.isascii():
        return list(range(len(source) + 1))
    sizes = [len(character.encode("utf-8", "surrogatepass")) for character in source]
    places = [place for place, size in enumerate(sizes) for _ in range(size)]
    return [*places, len(source)]


def _class(node: Any) -> str:
    kind = node.type
    if "comment" in kind:
        return "COMMENT"
    if kind in _STRINGS:
        return "STRING"
    if kind in _NUMBERS:
        return "NUMBER"
    if kind in _WORDS or (not node.is_named and kind.replace("_", "").isalpha()):
        return "KEYWORD"
    if "identifier" in kind or kind in _TYPES:
        return "NAME"
    return "OPERATOR"


def _role(path: list[tuple[Any, str | None]], kind: str, text: bytes) -> str:
    node, field = path[-1]
    parent, above = path[-2] if len(path) > 1 else (None, None)
    if parent is None:
        return ""
    outer = path[-3][0] if len(path) > 2 else None
    if kind == "STRING":
        return "docstring" if _is_docstring(node, parent, outer) else "string"
    if kind == "COMMENT":
        return "docstring" if text[node.start_byte : node.start_byte + 3] == b"/**" else ""
    if kind not in ("NAME", "KEYWORD"):
        return ""
    if parent.type in _TYPES:
        return "type"
    if node.type in _TYPES and (parent.type not in _DEFINITIONS or field != "name"):
        return "type"
    if kind != "NAME":
        return ""
    if parent.type in _DEFINITIONS and field == "name":
        return "definition"
    if (parent.type, field) in _CALLS:
        return "call"
    if (parent.type, field) in _MEMBERS:
        return "call" if outer is not None and (outer.type, above) in _CALLS else "attribute"
    if parent.type == "keyword_argument" and field == "name":
        return "argument"
    if (parent.type, field) in _PARAMETERS:
        return "parameter"
    if outer is not None and (parent.type, field) in _WRAPPED and outer.type in _LISTS:
        return "parameter"
    if any(ancestor.type == "type" for ancestor, _ in path[:-1]):
        return "type"
    return ""


def _is_docstring(node: Any, parent: Any, outer: Any) -> bool:
    if parent.type != "expression_statement" or outer is None:
        return False
    if outer.type not in ("module", "block"):
        return False
    first = next((child for child in outer.children if child.type != "comment"), None)
    return first is not None and first.start_byte == node.start_byte
