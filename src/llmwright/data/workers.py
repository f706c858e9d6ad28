"""Worker processes that map a function over a stream of tasks, in order, with few tasks in flight.

Each worker is a fresh interpreter fed through its pipes, one thread of ours per worker. Against multiprocessing: a
process pool there needs `if __name__ == "__main__"` in the user's script (it imports the script again), and its map
reads the whole stream of tasks ahead. Against fork: safe beside PyTorch's threads.
"""

import importlib
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..errors import Error, WorkError


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """`n` worker processes (0: everything runs in this process). A context manager; workers start at the first task.

    A function is named as `module:function`, so that a worker imports what it needs and no more.
    """

    def __init__(self, n: int):
        self.n = n
        self._local = threading.local()
        self._processes: list[subprocess.Popen] = []
        self._threads = ThreadPoolExecutor(n) if n else None

    def map(self, function: str, tasks: Iterable) -> Iterator[tuple[object, object]]:
        """(task, function(task)) for every task, in the order of the tasks. At most `n + 2` tasks are in flight.

        Raises what the function raises; WorkError when a worker dies.
        """
        if not self.n:
            call = _find(function)
            for task in tasks:
                yield task, call(task)
            return
        waiting: deque[tuple[object, Future]] = deque()
        try:
            for task in tasks:
                waiting.append((task, self._threads.submit(self._ask, function, task)))
                if len(waiting) >= self.n + 2:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()

    def _ask(self, function: str, task):
        process = getattr(self._local, "process", None)
        if process is None:
            process = self._local.process = self._start()
        try:
            _send(process.stdin, (function, task))
            answer = _receive(process.stdout)
        except (EOFError, OSError):
            answer = None
        if answer is None:
            code = process.wait()
            why = "killed, most likely for want of memory" if code == -signal.SIGKILL else f"exit code {code}"
            raise WorkError(f"a worker process ended ({why}); run again with fewer data.workers")
        ok, result = answer
        if ok:
            return result
        raise result

    def _start(self) -> subprocess.Popen:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        # one thread each: the processes are the parallelism
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1",
                       "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.Popen(
            [sys.executable, "-c", "from llmwright.data.workers import serve; serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0,
        )
        self._processes.append(process)
        return process

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for process in self._processes:
            if kind is not None:
                process.kill()
            process.stdin.close()
        for process in self._processes:
            process.wait()
            process.stdout.close()
        if self._threads:
            self._threads.shutdown(wait=True, cancel_futures=True)


def _find(function: str):
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


def serve() -> None:
    """A worker: answer tasks from stdin on stdout until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a stray print goes to stderr, not into an answer
    while True:
        try:
            function, task = _receive(requests)
        except EOFError:
            return
        try:
            answer = True, _find(function)(task)
        except Exception as error:
            answer = False, error if isinstance(error, (Error, OSError, MemoryError)) else _described(error)
        _send(answers, answer)
        del task, answer


def _described(error: Exception) -> Exception:
    import traceback

    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return RuntimeError(f"in a worker process:\n{trace}")


def _send(stream, message) -> None:
    """Arrays travel out of band, without a copy into the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(b.raw() for b in buffers)]
    parts.insert(0, memoryview(struct.pack(f"<Q{len(parts)}Q", len(parts), *(p.nbytes for p in parts))))
    for part in parts:
        while part.nbytes:  # a pipe may take less than it is given
            part = part[stream.write(part) :]


def _receive(stream):
    (n,) = struct.unpack("<Q", _exactly(stream, 8))
    sizes = struct.unpack(f"<{n}Q", _exactly(stream, 8 * n))
    head, *buffers = [_exactly(stream, size) for size in sizes]
    return pickle.loads(head, buffers=buffers)


def _exactly(stream, size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        got = stream.readinto(view[at:])
        if not got:
            raise EOFError
        at += got
    return data
