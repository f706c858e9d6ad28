"""`llmwright serve` as a child of another command, which ends it."""

import os
import signal
import subprocess
import sys
import tempfile

from ..errors import RequestError, WorkError


class Launched:
    """A server of `model` on a port that is free, with more `options` of the command: `url`. Use it in `with`.

    It is out of reach of a Ctrl-C on the terminal, which whoever started it takes as the sign to end it. Raises
    RequestError or WorkError with what it said where it does not start.
    """

    def __init__(self, model: str, *options: str):
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmwright", "serve", model, "--port", "0", *options],
            stdout=subprocess.PIPE, stderr=self.said, text=True, start_new_session=True,
        )
        try:
            line = self.process.stdout.readline()
        except BaseException:
            self.close()
            raise
        if " is served at " not in line:
            code = self.process.wait()
            self.said.seek(0)
            lines = [text.strip() for text in self.said if text.startswith("llmwright: ")]
            self.close()
            why = lines[-1].removeprefix("llmwright: ") if lines else f"the server ended with code {code}"
            raise (RequestError if code == 2 else WorkError)(why)
        self.url = line.split()[-1]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.process.stdout.close()
        self.said.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
