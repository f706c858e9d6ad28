"""Text that comes piece by piece, broken at words to the terminal's width; code between ``` lines is left alone."""

import re
import shutil
import unicodedata
from collections.abc import Callable

from .names import width

ITEM = re.compile(r"\d+[.)]|[-*•]")  # what begins a list's item, whose further lines are indented


class Wrap:
    """`put(piece)` as it comes, `end()` after the last. Empty lines and spaces at both ends of it are left out."""

    def __init__(self, write: Callable[[str], None], columns: Callable[[], int] | None = None):
        self.write, self.columns = write, columns or (lambda: shutil.get_terminal_size().columns)
        self.word, self.spaces, self.newlines, self.line, self.indent = "", "", "", "", 0
        self.begun = self.code = False

    def put(self, piece: str) -> None:
        for character in piece:
            if unicodedata.category(character) == "Cc" and character not in "\n\t":
                continue  # a model's text must not steer the terminal
            if character == "\n":
                self._newline()
            elif character in " \t" and not self.code:
                self._flush()
                self.spaces += character.expandtabs(4)
            elif width(character) > 1 or self.code:  # scripts without spaces break anywhere
                self._flush()
                self.word = character
                self._flush()
            else:
                self.word += character

    def end(self) -> None:
        self._flush()

    def _newline(self) -> None:
        self._flush()
        if self.line.lstrip().startswith("```"):
            self.code = not self.code
        self.newlines += "\n"  # written when a word follows
        self.spaces, self.line, self.indent = "", "", 0

    def _flush(self) -> None:
        if not self.word:
            return
        if not self.begun:
            self.spaces, self.newlines, self.begun = "", "", True
        if not self.line:
            self.indent = width(self.spaces) + (width(self.word) + 1 if ITEM.fullmatch(self.word) else 0)
        room = self.columns() - 1
        if not self.code and self.line and width(self.line + self.spaces + self.word) > room:
            self.indent = min(self.indent, room // 2)
            self.write("\n")
            self.spaces, self.line = " " * self.indent, ""
        self.write(self.newlines + self.spaces + self.word)
        self.line += self.spaces + self.word
        self.word = self.spaces = self.newlines = ""
