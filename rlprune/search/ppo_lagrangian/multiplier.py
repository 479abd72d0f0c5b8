"""PID-controlled Lagrange multiplier (Stooke, Achiam, Abbeel, ICML 2020, Algorithm 2)."""

from __future__ import annotations

from rlprune.errors import ConfigError


class PIDMultiplier:
    """The dual variable of one budget, driven by the mean violation ``cost / limit - 1``.

    ``lambda = clip(kp * v + I + kd * max(v - v_previous, 0), 0, maximum)`` with the integral
    ``I = clip(I + ki * v, 0, maximum)``. Anti-windup: the integral stays within the range that the
    multiplier itself can take, and does not grow while the multiplier is saturated, so it starts
    to fall in the very update in which the policy becomes feasible.

    Args:
        kp: proportional gain.
        ki: integral gain.
        kd: gain of the rise of the violation; its fall is not rewarded.
        initial: first value of the integral, hence of the multiplier.
        maximum: upper bound.
    """

    def __init__(
        self,
        kp: float = 1.0,
        ki: float = 0.5,
        kd: float = 0.2,
        initial: float = 0.0,
        maximum: float = 20.0,
    ) -> None:
        if min(kp, ki, kd, initial) < 0 or maximum <= 0:
            raise ConfigError(
                "multiplier: kp, ki, kd and initial must not be negative and maximum must be "
                f"positive, got {kp}, {ki}, {kd}, {initial} and {maximum}"
            )
        self.kp, self.ki, self.kd, self.maximum = kp, ki, kd, maximum
        self.integral = min(initial, maximum)
        self.previous: float | None = None
        self.value = self.integral

    def update(self, violation: float) -> float:
        """Takes the mean violation of the latest episodes and returns the new multiplier."""
        rise = 0.0 if self.previous is None else max(violation - self.previous, 0.0)
        saturated = self.value >= self.maximum and violation > 0
        if not saturated:
            self.integral = min(max(self.integral + self.ki * violation, 0.0), self.maximum)
        raw = self.kp * violation + self.integral + self.kd * rise
        self.value = min(max(raw, 0.0), self.maximum)
        self.previous = violation
        return self.value

    def state(self) -> dict[str, float | None]:
        """JSON-serialisable state."""
        return {"integral": self.integral, "previous": self.previous, "value": self.value}

    def restore(self, state: dict[str, float | None]) -> None:
        """Takes up a saved state."""
        self.integral = float(state["integral"] or 0.0)
        self.value = float(state["value"] or 0.0)
        self.previous = None if state["previous"] is None else float(state["previous"])
