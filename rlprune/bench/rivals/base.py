"""What optimisers of other libraries have in common: vectors in [-1, 1] out, results in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlprune.search import Agent, AgentConfig

if TYPE_CHECKING:
    from rlprune.plan import Plan
    from rlprune.problem import Evaluation
    from rlprune.search import Session


@dataclass(frozen=True)
class RivalConfig(AgentConfig):
    """Options of every rival.

    Attributes:
        anchor: what action 0 stands for, where all of them begin.
        project: scale each proposal onto the budgets before it is evaluated.
    """

    anchor: str = "sensitivity"
    project: bool = True


@dataclass(frozen=True)
class Seen:
    """One evaluation.

    Attributes:
        asked: ``[n]`` actions that were proposed.
        actions: ``[n]`` actions that stand for the plan that was evaluated.
        loss: what is minimised, the negative quality.
        violations: ``[m]`` of the budgets.
    """

    asked: np.ndarray
    actions: np.ndarray
    loss: float
    violations: np.ndarray


class Rival(Agent):
    """An agent around an optimiser of vectors; subclasses write :meth:`propose` and :meth:`learn`.

    Attributes:
        dimensions: length n of the vectors.
    """

    config_class = RivalConfig
    config: RivalConfig
    batches = True

    def options(self) -> dict[str, Any]:
        """How plans are made of actions."""
        return {**super().options(), "project": self.config.project}

    def start(self, session: Session) -> None:
        """Begins with the anchor alone known."""
        super().start(session)
        self.dimensions = len(session.space)
        self._asked: list[np.ndarray] = []
        self.prepare(self._seen(np.zeros(self.dimensions), session.reference))

    def ask(self, n: int) -> Sequence[Plan]:
        """Plans of the optimiser's next vectors."""
        self._asked = [np.clip(x, -1.0, 1.0) for x in self.propose(n)]
        return [self.session.codec.plan(actions) for actions in self._asked]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Hands the results to the optimiser."""
        self.learn([self._seen(x, e) for x, e in zip(self._asked, evaluations, strict=False)])

    def prepare(self, anchor: Seen) -> None:
        """Sets the optimiser up; the anchor has been evaluated."""
        raise NotImplementedError

    def propose(self, n: int) -> Sequence[np.ndarray]:
        """Up to ``n`` vectors ``[dimensions]`` in [-1, 1]."""
        raise NotImplementedError

    def learn(self, results: Sequence[Seen]) -> None:
        """Takes the results of the vectors proposed last; fewer where evaluations ran out."""
        raise NotImplementedError

    def _seen(self, asked: np.ndarray, evaluation: Evaluation) -> Seen:
        session = self.session
        violations = np.array([evaluation.violations[name] for name in session.budgets])
        actions = session.codec.actions(session.space.ratios(evaluation.plan))
        return Seen(asked, actions, -evaluation.quality, violations)


class Generational(Rival):
    """A rival whose optimiser takes the results of a generation at once.

    Subclasses write :meth:`breed` and :meth:`select`.
    """

    def start(self, session: Session) -> None:
        """Begins without a generation."""
        self._generation: Sequence[np.ndarray] = []
        self._results: list[Seen] = []
        super().start(session)

    def breed(self) -> Sequence[np.ndarray]:
        """The next generation's vectors ``[dimensions]``."""
        raise NotImplementedError

    def select(self, generation: Sequence[np.ndarray], results: Sequence[Seen]) -> None:
        """Takes the results of a whole generation."""
        raise NotImplementedError

    def propose(self, n: int) -> Sequence[np.ndarray]:
        """What is left of the generation at hand."""
        if not len(self._generation):
            self._generation = self.breed()
        return self._generation[len(self._results) :][:n]

    def learn(self, results: Sequence[Seen]) -> None:
        """Hands the generation to the optimiser when it is complete."""
        self._results += results
        if len(self._results) == len(self._generation):
            self.select(self._generation, self._results)
            self._generation, self._results = [], []
