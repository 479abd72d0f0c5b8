"""``python -m rlprune.bench.compensation``: accuracy without fine-tuning, method by method.

Two studies on uniform plans in l1 order, as in Kim et al. (NeurIPS 2020): LeNet-300-100 on 28 x 28
images, trained here once per seed, and VGG-16 on 32 x 32 images from a checkpoint. Every accuracy
is a small JSON file in the output folder; what is there is not computed again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch
from torch import Tensor, nn

import rlprune
from rlprune.compaction import build
from rlprune.compensation import LeastSquares, Merge, compensate
from rlprune.data import Data, decode, scan
from rlprune.data import load as load_data
from rlprune.errors import RlpruneError
from rlprune.files import read_json, write_json, write_text
from rlprune.identity import describe, digest
from rlprune.models import create, load_checkpoint
from rlprune.plan import Plan
from rlprune.progress import track
from rlprune.report import markdown
from rlprune.training import Pretrain, evaluate, pretrain

logger = logging.getLogger(__name__)

LENET_KEEPS = (0.5, 0.4, 0.3, 0.2)
VGG_KEEPS = (0.9, 0.8, 0.7, 0.5)
LENET_RECIPE = Pretrain(epochs=20, lr=0.1, weight_decay=5e-4, label_smoothing=0.0)


@dataclass(frozen=True)
class Way:
    """One line of a table.

    Attributes:
        name: shown in the table.
        make: builds the methods; objects are shared over the plans of one network.
        images: calibration samples; 0 for none.
    """

    name: str
    make: Callable[[], Any]
    images: int = 0


def lenet_ways(options: argparse.Namespace) -> list[Way]:
    """The lines of the LeNet-300-100 study."""

    def squares() -> LeastSquares:
        return LeastSquares(ridge=options.ridge)

    def merge() -> Merge:
        return Merge(options.threshold, options.lam)

    ways = [Way("pruned", lambda: None), Way("merged", merge)]
    for images in options.images:
        ways.append(Way(f"least squares, {images} images", squares, images))
        ways.append(
            Way(f"merged + least squares, {images} images", lambda: [merge(), squares()], images)
        )
        ways.append(Way(f"sequential, {images} images", lambda: [squares(), "sequential"], images))
    return ways


def vgg_ways(options: argparse.Namespace) -> list[Way]:
    """The lines of the VGG-16 study."""
    images = options.vgg_images

    def squares() -> LeastSquares:
        return LeastSquares(ridge=options.ridge)

    def merge() -> Merge:
        return Merge(options.threshold, options.lam)

    return [
        Way("pruned", lambda: None),
        Way("bn", lambda: ["bn"], images),
        Way("merged", merge),
        Way("merged + bn", lambda: [merge(), "bn"], images),
        Way("least squares", squares, images),
        Way("least squares + bn", lambda: [squares(), "bn"], images),
        Way("merged + least squares + bn", lambda: [merge(), squares(), "bn"], images),
        Way("sequential + bn", lambda: [squares(), "sequential", "bn"], images),
    ]


class Comparison:
    """Accuracies of one network at several keep ratios, one line per way of compensation.

    Args:
        name: of the study; cells are kept under it.
        model: the dense network.
        data: its data.
        options: the command's options.
        seed: of the network.
        autocast: precision of the accuracy's forward passes, see `rlprune.training.evaluate`.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        data: Data,
        options: argparse.Namespace,
        seed: int = 0,
        autocast: bool | str = False,
    ) -> None:
        self.autocast = autocast
        self.name, self.model, self.data, self.options, self.seed = name, model, data, options, seed
        self.groups = rlprune.discover(model, data.example_inputs)
        self._made: dict[str, Any] = {}

    def lines(self, ways: Sequence[Way], keeps: Sequence[float]) -> list[list[float]]:
        """Accuracies [way][keep ratio]; the first line is the dense network's."""
        dense = [self.value(None, 1.0)] * len(keeps)
        return [dense, *([self.value(way, keep) for keep in keeps] for way in ways)]

    def value(self, way: Way | None, keep: float) -> float:
        """Accuracy of one cell, computed unless it is there; None is the dense network."""
        name = way.name if way else "dense"
        asked = {
            "study": self.name,
            "way": name,
            "images": way.images if way else 0,
            "keep": keep if way else 1.0,
            "seed": self.seed,
            "split": self.options.split,
            "data": self.data,
            "network": self.model,
            "ridge": self.options.ridge,
            "threshold": self.options.threshold,
            "lam": self.options.lam,
        }
        path = Path(self.options.out) / self.name / f"{digest(asked)[:16]}.json"
        if path.exists():
            return float(read_json(path)["value"])
        task = self.data.task
        measured = evaluate(
            self._candidate(way, keep), self._samples(), task=task, autocast=self.autocast
        )
        value = measured[task.metric.name]
        write_json(path, {**describe(asked), "value": value})
        logger.info("%s seed %d keep %.2f %s: %.4f", self.name, self.seed, keep, name, value)
        return value

    def _candidate(self, way: Way | None, keep: float) -> nn.Module:
        if way is None:
            return self.model
        plan = Plan.uniform(self.groups, keep, "l1")
        small = build(self.groups, plan).eval()
        if way.name not in self._made:
            samples = self.data.calibration(way.images)[0] if way.images else None
            self._made[way.name] = (way.make(), samples)
        methods, samples = self._made[way.name]
        return compensate(self.groups, plan, small, methods, samples)

    def _samples(self) -> Any:
        if self.options.split == "test":
            return self.data.test_batches()
        return self.data.holdout


def lenet(options: argparse.Namespace) -> str:
    """The table of LeNet-300-100, mean and spread over the training seeds."""
    ways = lenet_ways(options)
    found: list[list[list[float]]] = []
    for seed in track(options.seeds, "LeNet-300-100"):
        data = grey(Path(options.fmnist))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = create("mlp", in_features=784)
        folder = Path(options.out) / "lenet" / f"dense_{seed}"
        model = pretrain(model, data, LENET_RECIPE, seed=seed, checkpoint_dir=folder).model
        found.append(Comparison("lenet", model, data, options, seed).lines(ways, LENET_KEEPS))
    return _table("LeNet-300-100", ways, LENET_KEEPS, found)


def vgg(options: argparse.Namespace) -> str:
    """The table of VGG-16 from a checkpoint."""
    data = load_data(
        name="imagefolder", root=options.cifar10, augmentation="none", holdout=options.vgg_holdout
    )
    model = load_checkpoint(create("vgg16"), options.vgg16).eval()
    ways = vgg_ways(options)
    study = Comparison("vgg16", model, data, options, autocast="auto")
    return _table("VGG-16", ways, VGG_KEEPS, [study.lines(ways, VGG_KEEPS)])


def grey(root: Path) -> Data:
    """An image folder with ``train/`` and ``test/``, one channel, standardised."""

    def read(part: str) -> tuple[Tensor, Tensor]:
        folder = scan(root / part)
        return decode(folder, None, None)[:, :1].contiguous(), folder.labels

    return Data(
        read("train"), test=lambda: read("test"), mean=(0.286,), std=(0.353,), name=root.name
    )


def _table(
    title: str, ways: Sequence[Way], keeps: Sequence[float], found: Sequence[list[list[float]]]
) -> str:
    """Accuracies [seed][way][keep] in percent, spread as the standard deviation over seeds."""
    rows = []
    for at, name in enumerate(["dense", *(way.name for way in ways)]):
        row = [name]
        for column in range(len(keeps)):
            values = [100 * lines[at][column] for lines in found]
            spread = f" ± {pstdev(values):.2f}" if len(values) > 1 else ""
            row.append(f"{mean(values):.2f}{spread}")
        rows.append(row)
    return markdown.table([title, *(f"{100 * (1 - k):.0f} % removed" for k in keeps)], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the studies whose data are given, print their tables and write them down."""
    parser = argparse.ArgumentParser("rlprune.bench.compensation", description=__doc__)
    parser.add_argument("--out", default="outputs/bench/compensation", help="folder of results")
    parser.add_argument("--fmnist", help="image folder of 28 x 28 images (train/, test/)")
    parser.add_argument("--cifar10", help="image folder of 32 x 32 images (train/, test/)")
    parser.add_argument("--vgg16", help="checkpoint of VGG-16 for --cifar10")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, nargs="*", default=[100, 500, 2000])
    parser.add_argument("--vgg-images", type=int, default=2000)
    parser.add_argument("--vgg-holdout", type=int, default=2000)
    parser.add_argument("--split", choices=["test", "holdout"], default="test")
    parser.add_argument("--ridge", type=float, help="of least squares; cross-validated if absent")
    parser.add_argument("--threshold", type=float, default=Merge().threshold)
    parser.add_argument("--lam", type=float, default=Merge().lam)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not options.fmnist and not (options.cifar10 and options.vgg16):
        parser.error("give --fmnist, or --cifar10 and --vgg16")
    tables = []
    if options.fmnist:
        tables.append(lenet(options))
    if options.cifar10 and options.vgg16:
        tables.append(vgg(options))
    text = "\n\n".join(tables) + "\n"
    write_text(Path(options.out) / f"compensation_{options.split}.md", text)
    sys.stdout.write(text)


if __name__ == "__main__":
    try:
        main()
    except RlpruneError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(1)
