"""CMA-ES over coordinates, as a function of the judged points: the same points give the same state in any session.

Also learns where programs crash, and draws elsewhere. Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

_FIRST = 0.5  # the first standard deviation of a coordinate, whose range is from -1 to 1
_LEAST = 0.02  # with a smaller one in all directions, values differ by less than a percent: begin again
_WORST = 1e300  # of a run that was stopped early: worse than every finished one, better than a crash
_REMEMBERED = 500  # points from which crashes are learned
_FAR = 3.0  # coordinates beyond say nothing more about a crash
_RIDGE, _STEPS = 0.3, 12
_RISKY = 0.3  # a point that crashes with a higher probability is drawn again
_DRAWS = 40


class Evolution:
    """The state of CMA-ES.

    Args:
        start: The first mean.
        widths: The first standard deviations, relative to each other.
        bounds: The least and the greatest coordinate of each axis.
    """

    def __init__(self, start: Sequence[float], widths: Sequence[float], bounds: Sequence[tuple[float, float]]) -> None:
        import numpy as np

        self._widths = np.asarray(widths, dtype=float)
        self._bounds = np.asarray(bounds, dtype=float)
        self._restarts = 0
        self._waiting: list[tuple[Vector, float]] = []
        self._begin(np.asarray(start, dtype=float))

    def _begin(self, mean: Vector) -> None:
        import numpy as np
        from cmaes import CMA

        self._cma = CMA(mean=mean, sigma=_FIRST, bounds=self._bounds, cov=np.diag(self._widths**2), seed=0)

    @property
    def generation(self) -> int:
        """How many generations are complete, from all beginnings."""
        return self._restarts + int(self._cma.generation)

    def add(self, point: Sequence[float], loss: float, best: Sequence[float]) -> None:
        """Add a judged point; a generation is complete with the last of its points.

        Args:
            loss: Infinite after a crash, NaN for a run that was stopped early.
            best: The coordinates of the best program so far, where to begin again when the search has come to its end.
        """
        import numpy as np

        self._waiting.append((np.asarray(point, dtype=float), _WORST if math.isnan(loss) else loss))
        if len(self._waiting) < self._cma.population_size:
            return
        self._cma.tell(self._waiting)
        self._waiting = []
        values = np.linalg.eigvalsh(self._cma._C)
        if self._cma.should_stop() or self._cma._sigma * math.sqrt(max(values[-1], 0.0)) < _LEAST:
            self._restarts += self._cma.generation
            self._begin(np.clip(np.asarray(best, dtype=float), self._bounds[:, 0], self._bounds[:, 1]))

    def draws(self, seed: int, crashes: Crashes) -> Iterator[Vector]:
        """Points to try, those that are not expected to crash first."""
        self._cma.reseed_rng(seed)
        risky: list[tuple[float, int, Vector]] = []
        for _ in range(_DRAWS):
            point = self._cma.ask()
            risk = crashes.risk(point)
            if risk < _RISKY:
                yield point
            else:
                risky.append((risk, len(risky), point))
        yield from (point for _, _, point in sorted(risky, key=lambda one: one[:2]))


class Crashes:
    """Where programs crash: a logistic regression on the coordinates, with a ridge.

    Args:
        points: The judged points, the last ones of which count.
        crashed: Whether each of them crashed.
    """

    def __init__(self, points: Sequence[Sequence[float]], crashed: Sequence[bool]) -> None:
        import numpy as np

        self._weights: Vector | None = None
        labels = np.asarray(crashed[-_REMEMBERED:], dtype=float)
        if not labels.any() or labels.all():
            return
        seen = self._features(np.asarray(points[-_REMEMBERED:], dtype=float))
        ridge = np.diag([1e-3, *[_RIDGE] * (seen.shape[1] - 1)])
        weights = np.zeros(seen.shape[1])
        for _ in range(_STEPS):  # Newton's method
            chance = 1 / (1 + np.exp(-np.clip(seen @ weights, -30, 30)))
            slope = seen.T @ (labels - chance) - ridge @ weights
            curve = (seen.T * (chance * (1 - chance) + 1e-6)) @ seen + ridge
            weights = weights + np.linalg.solve(curve, slope)
        self._weights = weights

    def risk(self, point: Vector) -> float:
        """The probability that a program at this point crashes; 0 before the first crash."""
        if self._weights is None:
            return 0.0
        return 1 / (1 + math.exp(-min(max(float(self._features(point[None])[0] @ self._weights), -30.0), 30.0)))

    @staticmethod
    def _features(points: Vector) -> Vector:
        import numpy as np

        return np.hstack([np.ones((len(points), 1)), np.clip(points, -_FAR, _FAR)])
