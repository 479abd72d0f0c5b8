"""An agent of your own: climbs from the best plan by changing a few keep ratios at a time.

    rlprune agent=outside_agent:Climber agent.step=0.2

from the folder of this file (or with it on PYTHONPATH), or in Python::

    rlprune.prune(model, inputs, data=data, budgets={"macs": 0.5}, agent=Climber(step=0.2))
"""

from collections.abc import Sequence

import numpy as np

from rlprune import Plan
from rlprune.problem import Evaluation
from rlprune.search import Agent, Session


class Climber(Agent):
    def __init__(self, step: float = 0.3, changes: int = 2) -> None:
        super().__init__()
        self.step, self.changes = step, changes

    def start(self, session: Session) -> None:
        super().start(session)
        self.best, self.quality = np.zeros(len(session.space)), session.reference.quality

    def ask(self, n: int) -> Sequence[Plan]:
        """Actions in [-1, 1], one per decision; the codec turns them into plans on the budgets."""
        rng, size = self.session.rng, len(self.best)
        self.asked = [self.best.copy() for _ in range(n)]
        for actions in self.asked:
            at = rng.integers(size, size=self.changes)
            actions[at] += rng.normal(0.0, self.step, self.changes)
        return [self.session.codec.plan(actions) for actions in self.asked]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        for actions, evaluation in zip(self.asked, evaluations, strict=False):
            if evaluation.feasible and evaluation.quality > self.quality:
                self.best, self.quality = actions, evaluation.quality
