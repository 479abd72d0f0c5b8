"""One specification: the same defaults from every side, and mistakes told before anything runs."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from typing import Any

import pytest

import rlprune
from rlprune import FineTune, tasks
from rlprune.budgets import parse
from rlprune.errors import ConfigError, RlpruneError
from rlprune.identity import describe
from rlprune.problem import EvaluatorConfig, create_executor
from rlprune.run import RunSpec, StructureSpec, TimingSpec
from rlprune.run.config import compose
from rlprune.search import create_agent

BENCHMARKS = ("search", "fidelity", "evaluation", "speed")


def settled_form(spec: RunSpec) -> dict[str, Any]:
    """Everything a specification says, agent and budgets with every option."""
    agent = dict(spec.agent) if isinstance(spec.agent, dict) else {"name": spec.agent}
    spec = replace(spec, agent=None, budgets={"macs": 0.5})
    found = {field.name: describe(getattr(spec, field.name)) for field in fields(spec)}
    executor = create_executor(spec.executor)
    return {
        **found,
        "agent": describe(create_agent(**agent)),
        "task": describe(tasks.resolve(spec.task)),
        "executor": [type(executor).__name__, executor.workers],
    }


def test_python_command_line_and_benchmarks_have_the_same_defaults() -> None:
    default = RunSpec(budgets={"macs": 0.5})
    python = settled_form(RunSpec.of(budgets={"macs": 0.5}))
    assert python == settled_form(default)
    recipe = {"finetune": FineTune()}
    for overrides in ([], *([f"+bench={name}"] for name in BENCHMARKS)):
        config = compose(list(overrides))
        assert parse(config["budget"])[0].limit == parse({"macs": 0.5})[0].limit
        assert settled_form(RunSpec.from_config(config)) == settled_form(
            replace(default, **recipe)
        ), overrides


def test_prune_takes_its_defaults_from_the_specification() -> None:
    parameters = inspect.signature(rlprune.prune).parameters
    default = RunSpec(budgets={"macs": 0.5})
    nested = {field.name for field in fields(StructureSpec)}
    live = {"model", "example_inputs", "data", "score", "budgets", "callbacks"}
    assert set(parameters) - live - nested == {f.name for f in fields(RunSpec)} - {
        "budgets", "structure",
    }  # fmt: skip
    for name in set(parameters) - live:
        declared = parameters[name].default
        whole = default.structure if name in nested else default
        assert declared is None or declared == getattr(whole, name), name
    built = RunSpec.of(
        budgets={"macs": 0.5},
        **{name: parameters[name].default for name in parameters if name not in live},
    )
    assert describe(built) == describe(default)


def test_partial_mappings_are_completed() -> None:
    spec = RunSpec.of(
        budgets={"macs": 0.5},
        evaluator={"images": 64, "compensation": ["merge"]},
        finetune={"epochs": 2},
        latency={"repeats": 3},
        exclude=["fc*"],
        round_to={"conv*": 8},
        bounds={"conv*": [0.25, 1]},
        stages=["report", "search"],
    )
    assert spec.evaluator == EvaluatorConfig(images=64, compensation=("merge",))
    assert spec.finetune == FineTune(epochs=2)
    assert spec.latency == TimingSpec(repeats=3)
    assert spec.structure.options()["bounds"] == {"conv*": (0.25, 1)}
    assert spec.stages == ("search", "report")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"evaluation": 3}, "no option 'evaluation'; did you mean 'evaluations'"),
    ({"evaluations": "abc"}, r"evaluations='abc': expected a whole number"),
    ({"evaluations": 1.5}, r"evaluations=1\.5: expected a whole number"),
    ({"evaluations": True}, r"evaluations=True: expected a whole number"),
    ({"seed": -1}, "seed must be 0 or more, got -1"),
    ({"budgets": 0.5}, r"budgets=0\.5: give names with limits"),
    ({"budgets": {"mac": 0.5}}, "macs"),
    ({"agent": "ppo"}, "agent 'ppo' is unknown"),
    ({"agent": {"name": "random", "anchors": 1}}, "anchors"),
    ({"importance": "l3"}, "l3"),
    ({"compensation": "least_square"}, "least_squares"),
    ({"evaluator": {"image": 3}}, "evaluator has no option 'image'; did you mean 'images'"),
    ({"evaluator": {"images": "many"}}, r"evaluator\.images='many': expected a whole number"),
    ({"evaluator": {"compensation": ["mergee"]}}, "merge"),
    ({"finetune": {"epoch": 3}}, "finetune has no option 'epoch'; did you mean 'epochs'"),
    ({"finetune": {"epochs": 0.5}}, r"epochs=0\.5: expected a whole number"),
    ({"finetune": "yes"}, "finetune must be a FineTune"),
    ({"latency": {"repeat": 3}}, "latency has no option 'repeat'; did you mean 'repeats'"),
    ({"latency": {"threads": 0}}, r"latency\.threads must be at least 1"),
    ({"latency": {"dtype": "float31"}}, r"latency\.dtype='float31': did you mean 'float32'"),
    ({"min_width": 0}, "min_width is 0"),
    ({"bounds": {"conv": [0.5]}}, "give two ratios"),
    ({"bounds": {"conv": [0.9, 0.5]}}, "0 < lowest <= highest"),
    ({"round_to": "8"}, r"structure\.round_to='8'"),
    ({"stages": ("train",)}, "stage 'train' is unknown"),
    ({"stages": ()}, "stages is empty"),
    ({"exports": ("onx",)}, "export 'onx' is unknown; did you mean 'onnx'"),
    ({"front_later": 1.5}, "later must be in"),
    ({"redo": "yes"}, "redo='yes': expected true or false"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_mistakes_are_told_with_what_would_be_right(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RlpruneError, match=message):
        RunSpec.of(**{"budgets": {"macs": 0.5}, **options})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+evaluation=3"], "no 'evaluation'; did you mean 'evaluations'"),
        (["evaluations=abc"], "evaluations='abc'"),
        (["finetune.epochs=0.5"], "epochs=0.5"),
        (["+finetune.epoch=5"], "did you mean 'epochs'"),
        (["latency.repeats=0"], "latency.repeats"),
        (["structure.min_width=0"], "min_width"),
        (["seed=-1"], "seed must be 0 or more"),
        (["stage=fine"], "did you mean 'finetune'"),
        (["threads=0"], "threads=0"),
        (["pretrain.epochs=0.5"], "epochs=0.5"),
    ],
)
def test_a_wrong_configuration_is_refused_before_the_dense_network_is_trained(
    overrides: list[str], message: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlprune.cli.job import run

    monkeypatch.setattr("rlprune.run.dense.pretrain", lambda *a, **k: pytest.fail("trained"))
    monkeypatch.setattr("rlprune.data.load", lambda **k: pytest.fail("data opened"))
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        run(compose([*overrides, f"pretrained_dir={tmp_path}"]), tmp_path / "run", redo=False)
    assert not (tmp_path / "run").exists()


def test_nothing_of_the_specification_can_be_changed() -> None:
    spec = RunSpec(budgets={"macs": 0.5})
    with pytest.raises(AttributeError):
        spec.evaluations = 3  # type: ignore[misc]
    with pytest.raises(ConfigError, match="threads"):
        replace(spec, latency=replace(spec.latency, threads=0))


def test_a_string_excludes_one_glob() -> None:
    assert RunSpec.of(budgets={"macs": 0.5}, exclude="head*").structure.exclude == ("head*",)
