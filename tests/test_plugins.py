from __future__ import annotations

from pathlib import Path

import pytest

from rlprune.errors import ConfigError
from rlprune.plugins import Registry


def registry() -> Registry[type]:
    shapes: Registry[type] = Registry("shape", "rlprune_tests.shapes")
    shapes.register("square")(int)
    return shapes


def test_registered_names_and_dotted_paths() -> None:
    shapes = registry()
    assert shapes.find("square") is int
    assert shapes.find("collections.OrderedDict").__name__ == "OrderedDict"
    assert shapes.find("collections:OrderedDict").__name__ == "OrderedDict"
    assert shapes.register("square")(int) is int
    with pytest.raises(ConfigError, match="'square' is registered already"):
        shapes.register("square")(float)


def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "plug_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[rlprune_tests.shapes]\ncircle = collections:Counter\nbroken = no_such_module:Shape\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    shapes = registry()
    assert shapes.names() == ["square", "broken", "circle"]
    assert shapes.find("circle").__name__ == "Counter"
    with pytest.raises(ConfigError, match="'broken': loading no_such_module:Shape"):
        shapes.find("broken")


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'square'"):
        registry().find("sqare")
    with pytest.raises(ConfigError, match="no module 'no_such_package'"):
        registry().find("no_such_package.Shape")
