"""A run directory: what a training leaves behind, and the only place it writes to.

    recipe.yaml  manifest.json  metrics.jsonl  samples.jsonl  checkpoints/step-N/{model/, state/}
    last, best → checkpoints/step-N      model → the best checkpoint's model directory

One live process at a time may hold it (`lock`).
"""

import fcntl
import json
import os
import shutil
import time
from pathlib import Path

from ..checkpoint.files import disk_errors, point, write_file, write_json
from ..errors import RequestError


class Run:
    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self._lock = None

    def open(self) -> "Run":
        """Make the directory and take its lock; raises RequestError when a live process holds it."""
        if self.path.exists() and not self.path.is_dir():
            raise RequestError(f"{self.path}: a file is in the way of the run directory; name another with out=…")
        with disk_errors(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / "lock", "a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            self._lock.close()
            raise RequestError(
                f"{self.path}: in use by process {holder}; wait for it, stop it, or name another run with out=…"
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        for left in [*self.path.glob(".*.new-*"), *self.checkpoints.glob(".*.new-*"), *self.checkpoints.glob(".*.old-*")]:
            if left.is_dir():  # a killed process's half-written folders and files
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        return self

    def close(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    def __enter__(self):
        return self.open()

    def __exit__(self, *_):
        self.close()

    def write_json(self, name: str, value) -> None:
        write_json(self.path / name, value)

    def read_json(self, name: str):
        """The file's content, or None when it is not there or not whole."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def append(self, name: str, record: dict) -> None:
        """One JSON object more at the end of `name`."""
        with disk_errors(self.path / name), open(self.path / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def cut_after(self, name: str, step: int) -> None:
        """Drop the records of `name` after `step`: a resumed training writes them again."""
        file = self.path / name
        if not file.exists():
            return
        kept = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError):
                continue  # a half-written last line
        write_file(file, "".join(line + "\n" for line in kept))

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are, ascending."""
        found = []
        for folder in self.checkpoints.glob("step-*"):
            tail = folder.name.removeprefix("step-")
            if tail.isdigit():
                found.append(int(tail))
        return sorted(found)

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step}"

    def retain(self, last: int, best: int | None) -> None:
        """Keep the `last` newest checkpoints and the best one; point `last`, `best` and `model` at them."""
        steps = self.steps()
        for step in steps[:-last]:
            if step != best:
                shutil.rmtree(self.checkpoint(step), ignore_errors=True)
        best = best if best in steps else steps[-1]
        point(self.path / "last", f"checkpoints/step-{steps[-1]}")
        point(self.path / "best", f"checkpoints/step-{best}")
        point(self.path / "model", f"checkpoints/step-{best}/model")


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
