"""What a person types, line by line: with editing and history on a terminal, several lines as one message, and from a
pipe as it comes."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

QUOTES = '"""'
HISTORY = 1000  # lines that are remembered


class Lines:
    """`read()` gives one message, or None at the end of the input. A line that ends in a backslash goes on in the next;
    a line of three quotes opens and closes several. Ctrl-C raises KeyboardInterrupt."""

    def __init__(self, words: Sequence[str] = (), history: Path | None = None):
        """`words`: what Tab completes. `history`: a file with the lines of earlier times."""
        self.terminal = sys.stdin.isatty()
        self.history, self.readline, self.unfinished = history, None, False
        if self.terminal:
            self._edit(words)
        else:
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")

    def read(self) -> str | None:
        self.unfinished = False
        line = self._line("> ")
        if line is None:
            return None
        self.unfinished = True  # more lines may follow
        text, quoted = line, line.lstrip().startswith(QUOTES)
        if quoted:
            text = line.lstrip()[len(QUOTES) :]
            while not text.rstrip().endswith(QUOTES):
                more = self._line("… ")
                if more is None:
                    return text
                text = f"{text}\n{more}"
            return text.rstrip()[: -len(QUOTES)].strip("\n")
        while text.endswith("\\"):
            more = self._line("… ")
            text = text[:-1] + ("" if more is None else f"\n{more}")
            if more is None:
                break
        return text

    def begun(self) -> bool:
        """Whether something was typed when the reading was interrupted."""
        return self.unfinished or bool(self.readline and self.readline.get_line_buffer())

    def save(self) -> None:
        """Remember the lines for the next time."""
        if self.readline is None or self.history is None:
            return
        try:
            self.history.parent.mkdir(parents=True, exist_ok=True)
            self.readline.set_history_length(HISTORY)
            self.readline.write_history_file(self.history)
            os.chmod(self.history, 0o600)
        except OSError:
            pass  # no history then; nobody asked for it

    def _line(self, prompt: str) -> str | None:
        try:
            if not self.terminal:
                line = sys.stdin.readline()
                return line.rstrip("\r\n") if line else None
            return input(prompt)
        except EOFError:
            return None

    def _edit(self, words: Sequence[str]) -> None:
        try:
            import readline
        except ImportError:  # the terminal's own editing then
            return
        self.readline = readline
        if self.history is not None and self.history.is_file():
            try:
                readline.read_history_file(self.history)
            except OSError:
                pass
        readline.set_completer_delims(" ")
        readline.set_completer(lambda text, n: [*(word for word in words if text and word.startswith(text)), None][n])
        editline = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if editline else "tab: complete")
        if not editline:
            readline.parse_and_bind("set enable-bracketed-paste on")  # several pasted lines are one message
