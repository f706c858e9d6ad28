"""Ctrl-C and SIGTERM ask the loop to stop at its next safe point; a second one stops at once."""

import contextlib
import signal
import threading


class StopRequest:
    """`asked` is the name of the signal that came, or None."""

    asked: str | None = None


@contextlib.contextmanager
def stop_on_signals():
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may set handlers
        return

    def ask(number, frame):
        if request.asked:
            raise KeyboardInterrupt
        request.asked = signal.Signals(number).name

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
