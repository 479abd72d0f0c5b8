"""``load()``: the pruned network of a run, back from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from rlprune.errors import CheckpointError
from rlprune.files import file_digest, read_json, require_json
from rlprune.plan import Plan
from rlprune.run.changes import RUN_FILE
from rlprune.run.example import load_example

MODEL_FILE = "model.safetensors"


def load(
    run_dir: str | Path,
    model: nn.Module | None = None,
    *,
    example_inputs: Any = None,
    trust: bool = False,
) -> nn.Module:
    """Build the pruned network of a run.

    The dense network is built first, by the factory that the run recorded or as ``model``, then
    cut to ``plan.json`` and filled with ``model.safetensors``. Nothing is unpickled, and no code
    runs that the folder names, unless you say that you trust it.

    Args:
        run_dir: The run folder.
        model: The dense network, trained or not; not changed. None takes the recorded factory.
        example_inputs: What it is called with; None takes those of the run.
        trust: Whether the recorded factory may be any function that can be imported here, as it is
            for networks of your own. Without it, only networks are built that rlprune, torchvision
            or timm know by name.

    Returns:
        The pruned network, in eval mode, on the device of ``model`` or the CPU.

    Raises:
        CheckpointError: The folder holds no finished run, a file of it is damaged, or it names no
            factory, or one that needs ``trust=True``.
        PlanError: ``model`` is another network than the run's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from rlprune.compaction import build, discover
    from rlprune.models import create
    from rlprune.models.trust import is_harmless
    from rlprune.run.placing import place

    folder = Path(run_dir).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the folder of a finished run")
    run = require_json(folder / RUN_FILE, "is this the folder of a run?")
    if "front" in run.get("settings", {}).get("search", {}):
        below = ", ".join(str(path.parent) for path in sorted(folder.glob(f"*/{RUN_FILE}")))
        raise CheckpointError(f"{folder} holds a run for several limits; load one of {below}")
    _require_unchanged(folder)
    try:
        plan = Plan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
        weights = load_file(folder / MODEL_FILE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} holds no finished run ({error}); start it again to finish it"
        ) from error
    if model is None:
        factory = run.get("factory")
        if not isinstance(factory, Mapping):
            raise CheckpointError(
                f"{folder} does not say how its network is built; give model=the dense network, "
                "or name a factory= when pruning"
            )
        factory = {**factory, "weights": None}
        if not (trust or is_harmless(factory)):
            raise CheckpointError(
                f"{folder / RUN_FILE} names {factory.get('name', factory.get('_target_'))!r} to "
                "build the network, a function that would be called; give model=the dense network, "
                "or trust=True if the folder is yours"
            )
        model = create(**factory)
    inputs = load_example(folder) if example_inputs is None else example_inputs
    dense, inputs = place(model, inputs, None)
    groups = discover(dense, inputs, **_structure(run["structure"]))
    small = build(groups, plan)
    try:
        small.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder / MODEL_FILE} does not fit the network of the plan: {error}"
        ) from error
    return small.eval()


def _require_unchanged(folder: Path) -> None:
    """Hold plan and weights against the digests that the stages recorded, where they are there."""
    for stage, name in (("search", "plan.json"), ("finetune", MODEL_FILE)):
        record = read_json(folder / "stages" / f"{stage}.json")
        known = (record or {}).get("outputs", {}).get(name)
        file = folder / name
        if known is not None and file.is_file() and known != file_digest(file):
            raise CheckpointError(
                f"{file} is damaged: its content is not what the run recorded; run it "
                "again in this folder, which repeats what is damaged, or take another copy"
            )


def _structure(recorded: Mapping[str, Any]) -> dict[str, Any]:
    bounds = {glob: tuple(pair) for glob, pair in recorded["bounds"].items()}
    return {**recorded, "exclude": tuple(recorded["exclude"]), "bounds": bounds}
