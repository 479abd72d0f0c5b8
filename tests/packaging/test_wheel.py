from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import rlprune

ROOT = Path(rlprune.__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and an sdist, as an installer would build them."""
    folder = tmp_path_factory.mktemp("dist")
    program = (
        "from hatchling.build import build_sdist, build_wheel\n"
        f"print(build_wheel({str(folder)!r}))\nprint(build_sdist({str(folder)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def tracked(folder: str, pattern: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(pattern)}


def test_the_wheel_holds_both_packages_and_every_config(distributions: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(distributions[0]).namelist())
    assert names >= tracked("rlprune", "*.py")
    assert names >= {name.removeprefix("envs/") for name in tracked("envs", "*.py")}
    assert names >= {f"rlprune/{name}" for name in tracked("configs", "*.yaml")}
    assert names >= {"rlprune/py.typed", "rlprune_envs/py.typed"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"rlprune", "rlprune_envs"}


def test_the_sdist_holds_what_the_wheel_is_made_of(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder, pattern in (("rlprune", "*.py"), ("envs", "*.py"), ("configs", "*.yaml")):
        assert names >= tracked(folder, pattern)
    assert names >= {"pyproject.toml", "README.md", "LICENSE"}


def test_an_unpacked_wheel_finds_its_configs(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    zipfile.ZipFile(distributions[0]).extractall(tmp_path)
    program = (
        "from pathlib import Path\n"
        "import rlprune, rlprune_envs\n"
        "from rlprune.run.config import config_dir\n"
        "from rlprune.run.config import compose\n"
        f"root = Path({str(tmp_path)!r}).resolve()\n"
        "assert config_dir() == root / 'rlprune' / 'configs', config_dir()\n"
        "assert Path(rlprune_envs.__file__).is_relative_to(root)\n"
        "assert compose([])['model']['name'] == 'digits_cnn'\n"
        "assert compose(['experiment=resnet56_macs_50'])['model']['name'] == 'resnet56'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_importing_rlprune_is_light() -> None:
    program = (
        "import sys, rlprune\n"
        "heavy = {'torch', 'stable_baselines3', 'gymnasium', 'hydra', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'envs'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_can_be_imported() -> None:
    for name in rlprune.__all__:
        assert getattr(rlprune, name) is not None
