"""The engine's threads and PyTorch's share the same cores.

After each of its operations PyTorch's OpenMP threads go on turning for some milliseconds, in case another comes at once.
The engine's own threads (`kernels/cpu/tape.cpp`) then get half a core, and the others wait for them: a step of 8 texts
takes 15 to 25 ms on two cores, and 9 where OpenMP gives up soon.
"""

import os


def little() -> None:
    """Let OpenMP's threads turn for some microseconds only. For a process that writes text; to be called before it
    loads PyTorch, or before it starts another that will. What the user has set stays."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
