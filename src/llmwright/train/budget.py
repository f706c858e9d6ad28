"""How far a training is: the largest of the shares spent of its steps, minutes and epochs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    steps: int | None = None
    seconds: float | None = None
    epochs: float | None = None

    def progress(self, step: int, seconds: float, epoch: float) -> float:
        """0 at the start; 1 or more when any limit is reached."""
        shares = [
            spent / limit
            for spent, limit in ((step, self.steps), (seconds, self.seconds), (epoch, self.epochs)) if limit
        ]
        return max(shares)
