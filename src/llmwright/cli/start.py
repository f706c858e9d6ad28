"""A quick start: what is imported and loaded stays; looking for garbage among it takes a tenth of the start."""

import contextlib
import gc


@contextlib.contextmanager
def quickly():
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor is what is here now looked through later
        gc.enable()
