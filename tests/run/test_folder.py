from __future__ import annotations

from pathlib import Path

import pytest

from rlprune.errors import ConfigError
from rlprune.files import plain, read_json, write_atomically, write_json, write_text
from rlprune.run.folder import RunFolder


def test_a_record_vouches_for_its_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write_text(folder / "plan.json", "{}")
    folder.finish("search", {"seed": 0}, ["plan.json"], {"quality": 1.0}, 2.5)
    record = folder.record("search")
    assert record is not None
    assert record.result == {"quality": 1.0}
    write_text(folder / "plan.json", "{} ")
    assert folder.record("search") is None
    (folder / "plan.json").unlink()
    assert folder.record("search") is None
    assert folder.record("finetune") is None


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "search.json").write_text('{"stage": "sea')
    assert folder.record("search") is None
    (tmp_path / "stages" / "search.json").write_text('{"other": 1}')
    assert folder.record("search") is None


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail(target: Path) -> None:
        target.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_holds_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": (1, 2.5), "c": test_json_holds_no_nan})
    assert read_json(tmp_path / "a.json") == {
        "a": None,
        "b": [1, 2.5],
        "c": plain(test_json_holds_no_nan),
    }


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        RunFolder(tmp_path / "taken")
