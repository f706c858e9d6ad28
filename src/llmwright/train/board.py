"""Metrics for TensorBoard, in the run's `tensorboard/`."""

from contextlib import AbstractContextManager
from pathlib import Path


class Board(AbstractContextManager):
    """Without a `path`, or without the tensorboard package, it takes records and writes nothing."""

    def __init__(self, path: Path | None):
        self.writer = None
        if path is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self.writer = SummaryWriter(str(path))

    def add(self, record: dict) -> None:
        """One scalar for each number in `record`, at its `step`."""
        if self.writer:
            for key, value in record.items():
                if key != "step" and isinstance(value, (int, float)):
                    self.writer.add_scalar(key, value, record["step"])

    def __exit__(self, *error):
        if self.writer:
            self.writer.close()
