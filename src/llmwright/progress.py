"""What long work shows while it runs: bars on a terminal, plain lines elsewhere, nothing in a library call.

Work that takes time receives a `Progress` and opens one task for each stage:

    with progress.task("cleaning", total=n_bytes, unit="B") as task:
        for chunk in chunks:
            ...
            task.advance(len(chunk), kept=kept)

`Progress` itself is silent, so it is the default everywhere. `console()` gives what the command line uses; it writes
to stderr, since stdout is for results.
"""

import sys
import time


def amount(value: float, unit: str) -> str:
    """A number a person can read: 12.3M tokens, 4.5 MB, 1,234 steps."""
    if unit == "B":
        for suffix in ("B", "KB", "MB", "GB", "TB"):
            if abs(value) < 1000 or suffix == "TB":
                return f"{value:.0f} B" if suffix == "B" else f"{value:.1f} {suffix}"
            value /= 1000
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:.2f}{suffix} {unit}".rstrip()
    text = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.2f}"
    return f"{text} {unit}".rstrip()


def clock(seconds: float) -> str:
    """Seconds as 42s, 3:05 or 1:02:03."""
    seconds = max(0, int(seconds + 0.5))
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Task:
    """One stage of work. Counts silently; the subclasses below also show it. The unit "share" counts from 0 to 1."""

    def __init__(self, name: str, total: float | None = None, unit: str = ""):
        self.name, self.total, self.unit = name, total, unit
        self.done, self.info, self.started = 0.0, {}, time.monotonic()

    def advance(self, n: float = 1, **info) -> None:
        """Count `n` more units done; `info` is shown beside the bar (for example loss=1.23)."""
        self.done += n
        self.info.update(info)

    def resume_at(self, done: float) -> None:
        """Start the count at `done` (work finished by an earlier run), without counting it in the rate."""
        self.done = done
        self.resumed = done

    resumed = 0.0
    after = 0.0  # seconds of work that follow the last unit, part of the time left

    @property
    def rate(self) -> float:
        return (self.done - self.resumed) / max(time.monotonic() - self.started, 1e-9)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close(failed=kind is not None)

    def close(self, failed: bool = False) -> None:
        pass

    def describe(self, ended: bool = False) -> str:
        """`40%  12.0 MB  4.1 MB/s  0:04 left  loss 1.23`; when it has `ended` well, without share and time left."""
        parts = [amount(self.done, self.unit)] if self.unit != "share" else []
        if self.total and not ended:
            parts.insert(0, f"{100 * min(self.done / self.total, 1):3.0f}%")
        if self.rate >= 0.1 and self.unit != "share":
            parts.append(f"{amount(self.rate, self.unit or 'items')}/s")
        if self.total and 0 < self.done < self.total and self.rate > 0 and not ended:
            parts.append(f"{clock((self.total - self.done) / self.rate + self.after)} left")
        parts += [f"{key} {value}" for key, value in self.info.items()]
        return "  ".join(parts)


class Progress:
    """Silent. The interface that work reports to."""

    def task(self, name: str, total: float | None = None, unit: str = "") -> Task:
        return Task(name, total, unit)

    def say(self, text: str) -> None:
        """One line for the person watching."""


class _Line(Task):
    """Plain lines: one at most every `every` seconds, and one at the end."""

    every = 10.0

    def __init__(self, *args):
        super().__init__(*args)
        self.shown = self.started

    def advance(self, n=1, **info):
        super().advance(n, **info)
        if time.monotonic() - self.shown >= self.every:
            self.shown = time.monotonic()
            print(f"{self.name}: {self.describe()}", file=sys.stderr, flush=True)

    def close(self, failed=False):
        took = clock(time.monotonic() - self.started)
        end = "stopped" if failed else "done"
        print(f"{self.name}: {self.describe(ended=not failed)}  {end} in {took}", file=sys.stderr, flush=True)


class Lines(Progress):
    """For a log file or a pipe."""

    def task(self, name, total=None, unit=""):
        return _Line(name, total, unit)

    def say(self, text):
        print(text, file=sys.stderr, flush=True)


class _Bar(Task):
    """A rich progress bar that redraws at most ten times a second."""

    def __init__(self, console, name, total, unit):
        super().__init__(name, total, unit)
        from rich.progress import BarColumn, Progress as RichProgress, SpinnerColumn, TextColumn

        self.bar = RichProgress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=console,
            refresh_per_second=10,
        )
        self.bar.start()
        self.id = self.bar.add_task(name, total=total, text="")

    def advance(self, n=1, **info):
        super().advance(n, **info)
        self.bar.update(self.id, completed=self.done, text=self.describe())

    def close(self, failed=False):
        took = clock(time.monotonic() - self.started)
        if not failed:
            self.bar.update(self.id, total=max(self.done, 1), completed=max(self.done, 1))
        self.bar.update(self.id, text=f"{self.describe(ended=not failed)}  {'stopped' if failed else 'in'} {took}")
        self.bar.stop()


class Bars(Progress):
    """For a terminal."""

    def __init__(self):
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def task(self, name, total=None, unit=""):
        return _Bar(self.console, name, total, unit)

    def say(self, text):
        self.console.print(text, markup=False)


def command_name() -> str:
    """How a person at this terminal calls the command: `llmwright`, or its path where that is not on PATH."""
    import os
    import shutil

    if shutil.which("llmwright"):
        return "llmwright"
    beside = os.path.join(os.path.dirname(sys.executable), "llmwright")
    shown = os.path.relpath(beside)
    return (shown if not shown.startswith("..") else beside) if os.path.exists(beside) else "llmwright"


def console() -> Progress:
    """Bars when stderr is a terminal, plain lines otherwise."""
    return Bars() if sys.stderr.isatty() else Lines()
