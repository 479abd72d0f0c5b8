"""Actor and critics: a search distribution per position, bent by what the policy observes."""

from __future__ import annotations

import math
from typing import Any

import torch
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import nn
from torch.nn import functional

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_TAIL = 3.0


class PositionExtractor(nn.Module):
    """Latents of actor and critics: a small tanh network beside the untouched one-hot position.

    The one-hot part gives every position a bias of its own, so that the actor contains the
    diagonal Gaussian over whole plans as a special case; the network adds what depends on the
    layer and on the decisions taken before.

    Args:
        features_dim: size of the observation.
        positions: size of its leading one-hot field.
        hidden: width of the hidden layer.
    """

    def __init__(self, features_dim: int, positions: int, hidden: int) -> None:
        super().__init__()
        self.positions = positions
        self.actor = nn.Sequential(nn.Linear(features_dim - positions, hidden), nn.Tanh())
        self.critic = nn.Sequential(nn.Linear(features_dim - positions, hidden), nn.Tanh())
        self.latent_dim_pi = hidden + positions
        self.latent_dim_vf = hidden + positions

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns both latents."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """``[B, features]`` to ``[B, hidden + positions]``."""
        n = self.positions
        return torch.cat([self.actor(features[:, n:]), features[:, :n]], dim=1)

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """``[B, features]`` to ``[B, hidden + positions]``."""
        n = self.positions
        return torch.cat([self.critic(features[:, n:]), features[:, :n]], dim=1)


class MultiCriticPolicy(ActorCriticPolicy):
    """Gaussian actor with a mean and a standard deviation per position, and ``1 + m`` critics.

    Critic 0 estimates the reward, critic k the violation of budget k. ``forward``,
    ``evaluate_actions`` and ``predict_values`` return values ``[B, 1 + m]``.

    Args:
        positions: number of decisions (size of the one-hot field).
        n_costs: number of budgets m.
        hidden: width of the hidden layers.
        std_range: bounds of the standard deviation.
        See :class:`stable_baselines3.common.policies.ActorCriticPolicy` for the others.
    """

    def __init__(
        self,
        *args: Any,
        positions: int,
        n_costs: int,
        hidden: int = 32,
        std_range: tuple[float, float] = (0.02, 1.0),
        **kwargs: Any,
    ) -> None:
        self._shape = (positions, n_costs, hidden)
        self.std_range = std_range
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        positions, n_costs, hidden = self._shape
        return {
            **super()._get_constructor_parameters(),
            "positions": positions,
            "n_costs": n_costs,
            "hidden": hidden,
            "std_range": self.std_range,
        }

    def _build(self, lr_schedule: Schedule) -> None:
        positions, n_costs, hidden = self._shape
        self.mlp_extractor = PositionExtractor(  # type: ignore[assignment]
            self.features_dim, positions, hidden
        )
        self.action_net = nn.Linear(self.mlp_extractor.latent_dim_pi, 1)
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1 + n_costs)
        self.log_std = nn.Parameter(torch.full((positions,), float(self.log_std_init)))
        for head in (self.action_net, self.value_net):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.optimizer = self.optimizer_class(
            self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )  # type: ignore[call-arg]

    def _get_action_dist_from_latent(self, latent_pi: torch.Tensor) -> Distribution:
        mean = torch.tanh(self.action_net(latent_pi))
        return self.action_dist.proba_distribution(mean, self._log_std(latent_pi))

    def _log_std(self, latent_pi: torch.Tensor) -> torch.Tensor:
        position = latent_pi[:, -self._shape[0] :]
        low, high = (math.log(bound) for bound in self.std_range)
        return (position @ self.log_std).clamp(low, high).unsqueeze(1)

    def widen(self, factor: float) -> None:
        """Multiplies all standard deviations by ``factor``, within their range."""
        low, high = (math.log(bound) for bound in self.std_range)
        with torch.no_grad():
            self.log_std.add_(math.log(factor)).clamp_(low, high)

    def sample(
        self, obs: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Samples actions ``[B, 1]`` with values ``[B, 1 + m]`` and log-probabilities ``[B]``.

        Unlike ``forward`` it draws from an explicit generator.
        """
        mean, log_std, values = self._heads(obs)
        noise = torch.randn(mean.shape, generator=generator)
        actions = torch.addcmul(mean[:, None], log_std.exp()[:, None], noise[:, None])
        return actions, values, _log_density(noise, log_std)

    def evaluate_actions(  # type: ignore[override]
        self, obs: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values ``[B, 1 + m]``, log-probabilities ``[B]`` and entropies ``[B]`` of actions."""
        mean, log_std, values = self._heads(obs)
        noise = (actions[:, 0] - mean) * torch.exp(-log_std)
        return values, _log_density(noise, log_std), log_std + (0.5 + _HALF_LOG_TWO_PI)

    def _heads(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means ``[B]``, log standard deviations ``[B]`` and values ``[B, 1 + m]``.

        What ``forward`` computes in a dozen small operators, in four: both hidden layers are one
        product, all that depends on the position alone is another, and tanh is taken from the
        sigmoid, ``tanh(x) = 2 sigmoid(2 x) - 1``, which PyTorch computes several times faster.
        """
        n, _, hidden = self._shape
        low, high = (math.log(bound) for bound in self.std_range)
        extractor: Any = self.mlp_extractor
        heads: tuple[Any, ...] = (self.action_net, self.value_net)
        actor, critic = extractor.actor[0], extractor.critic[0]
        weight = torch.cat([actor.weight, critic.weight])
        bias = torch.cat([actor.bias, critic.bias])
        latent = torch.sigmoid(functional.linear(obs[:, n:], 2 * weight, 2 * bias))
        spread = self.log_std.clamp(low, high)[None]
        table = torch.cat([spread, *(head.weight[:, hidden:] for head in heads)])
        blocks = torch.block_diag(*(head.weight[:, :hidden] for head in heads))
        offset = torch.cat([head.bias for head in heads]) - blocks.sum(1)
        by_position = functional.linear(obs[:, :n], table)
        outputs = torch.addmm(offset, latent, 2 * blocks.T) + by_position[:, 1:]
        return torch.tanh(outputs[:, 0]), by_position[:, 0], outputs[:, 1:]


def _log_density(noise: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Log-density of standardised actions, Gaussian with exponential tails.

    Actions that the policy has not sampled itself may lie many standard deviations away, where a
    Gaussian's ratio of densities overflows after the smallest step of its mean.
    """
    apart = noise.abs()
    inside = apart.clamp(max=_TAIL)
    return -(inside * (apart - 0.5 * inside) + log_std + _HALF_LOG_TWO_PI)
