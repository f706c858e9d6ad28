"""Whether a sampled completion of Python source parses.

A completion is cut off by the token limit wherever it happens to stand, so it is judged as the beginning of a program:

1. the last line, which the limit left unfinished, is dropped (nothing is, when the model ended the text itself);
2. brackets and a string that are still open at the end are closed; where that does not do, the statement they are in is
   dropped, if it is no longer than what is kept;
3. a block whose body is still to come gets `pass`, a decorator something to decorate, an open `try` its `finally`;
4. prompt and completion together must then parse, and at least one line that is kept must be code: neither blank nor a
   comment.

Nothing else is repaired or dropped, so a mistake anywhere in the middle counts. The true continuations of the same
documents, cut in the same way, say how much of a perfect model's output this rule would accept.
"""

import ast
import io
import tokenize
import warnings

LONGEST = 200_000  # characters; ast.parse on more is not worth the risk


def parses(source: str) -> bool:
    """Whether `source` is a Python module. No text can stop the process: what the parser cannot stand is False."""
    if len(source) > LONGEST:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def check_python(texts: list[str]) -> list[bool]:
    """Whether each text parses, as it is."""
    return [parses(text) for text in texts]


def prompt(document: str, least: int = 200, most: int = 1000) -> str | None:
    """The beginning of `document`: the fewest whole lines that have `least` characters and parse, so that it ends
    between statements and not, say, within the module's docstring, and is followed by a line of code. None when there
    is no such beginning within `most` characters."""
    end = 0
    for line in document.splitlines(keepends=True):
        start = document[:end]
        if end >= least and _has_code(line) and _has_code(start) and parses(start):
            return start
        end += len(line)
        if end > most:
            return None
    return None


def completion_parses(prompt: str, completion: str, finished: bool) -> bool:
    """The rule above. `finished`: the model ended the text itself."""
    if finished:
        return _has_code(completion) and parses(prompt + completion)
    kept = completion[: completion.rfind("\n") + 1]
    source = prompt + kept
    if len(source) > LONGEST:
        return False
    for end, ending in _endings(source):
        dropped, used = len(source) - end, end - len(prompt)
        if dropped <= used and _has_code(source[len(prompt) : end]) and parses(source[:end] + ending):
            return True
    return False


def _has_code(text: str) -> bool:
    return any(line.strip() and not line.strip().startswith("#") for line in text.splitlines())


def _endings(source: str) -> list[tuple[int, str]]:
    """The ways to end `source`, best first: how much of it to keep, and the text that closes what is open there."""
    offsets = [0]
    for text in io.StringIO(source):
        offsets.append(offsets[-1] + len(text))
    blocks: list[tuple[int, str]] = []  # column and first word of the open blocks
    brackets: list[str] = []  # what closes the open brackets
    last: list[tokenize.TokenInfo] = []  # the last whole statement's line
    line: list[tokenize.TokenInfo] = []  # the one being read
    row = 0  # where the last whole statement ends
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.INDENT:
                blocks.append((last[0].start[1], last[0].string) if last else (0, ""))
            elif token.type == tokenize.DEDENT:
                if token.start[0] < len(offsets):  # not those at the very end
                    blocks.pop()
            elif token.type == tokenize.NEWLINE:
                last, line, row = line, [], token.end[0]
            elif token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER):
                line.append(token)
                if token.type == tokenize.OP and token.string in "([{":
                    brackets.append(")]}"["([{".index(token.string)])
                elif token.type == tokenize.OP and token.string in ")]}" and brackets:
                    brackets.pop()
    except (tokenize.TokenError, SyntaxError, ValueError) as error:  # an IndentationError is a SyntaxError
        if "EOF in multi-line" not in str(error) and "unterminated triple-quoted" not in str(error):
            return [(len(source), "")]  # a real mistake: the parser will find it
        closing = "".join(reversed(brackets)) + "\n" + _close([], blocks)
        whole = [(len(source), quotes + closing) for quotes in ("", '"""', "'''")]
        return [*whole, (offsets[min(row, len(offsets) - 1)], _close(last, blocks))]
    return [(len(source), _close(last, blocks))]


def _close(last: list[tokenize.TokenInfo], blocks: list[tuple[int, str]]) -> str:
    """What ends a module after the line `last` within `blocks`: a body, something to decorate, `finally`."""
    text, blocks = "", list(blocks)
    if last and last[0].string == "@":
        text = f"{' ' * last[0].start[1]}def _(): pass\n"
    elif len(last) > 1 and last[-1].string == ":":
        text = f"{' ' * (last[0].start[1] + 1)}pass\n"
        blocks.append((last[0].start[1], last[0].string))
    return text + "".join(f"{' ' * column}finally: pass\n" for column, word in reversed(blocks) if word == "try")
