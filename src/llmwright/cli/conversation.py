"""`llmwright chat`: questions and answers until the user leaves, and the /commands between them."""

import contextlib
import shutil
import signal
import sys
import textwrap

from ..engine.chat import Answer, Chat
from ..errors import Error, RequestError
from .prompt_line import Lines
from .wrap import Wrap

HELP = """\
/system TEXT      tell the model who it is; alone: show it; /system none: as its template has it
/clear            forget the conversation
/regenerate       another answer to the last question
/undo             forget the last question and its answer
/set NAME VALUE   temperature, top_p, top_k, min_p, repetition_penalty, max_tokens, seed, …; alone: show them
/save FILE        write the conversation as JSON; a file that is no saved conversation is left alone
/load FILE        go on with one
/tokens           how much of the context is used
/stats            tell the speed after each answer, or stop telling it
/exit             leave, as Ctrl-D does
Ctrl-C stops an answer. A line that ends in \\ goes on in the next; a line of \"\"\" opens and closes several.
What begins with // is said with one / and is no command."""
COMMANDS = ("help", "system", "clear", "regenerate", "undo", "set", "save", "load", "tokens", "stats", "exit")
ALONE = ("help", "clear", "regenerate", "undo", "tokens", "stats", "exit")  # of what stands behind them nothing would come
WHOLE = ("top_k", "max_tokens", "seed", "min_tokens")  # settings that are whole numbers
SHOWN = ("temperature", "top_p", "top_k", "min_p", "typical", "repetition_penalty", "presence_penalty",
         "frequency_penalty", "min_tokens")

SETTINGS = (*SHOWN, "greedy", "max_tokens", "seed")


class Conversation:
    """`run()` returns when the user leaves. Answers go to stdout; what is said about them goes to stderr, so that a
    pipe gets answers alone."""

    def __init__(self, chat: Chat, lines: Lines, stats: bool = False):
        self.chat, self.lines, self.stats = chat, lines, stats
        self.pretty = sys.stdout.isatty() and sys.stderr.isatty()

    def run(self) -> None:
        asked_to_leave = False
        while True:
            try:
                with _Interrupts():
                    text = self.lines.read()
            except KeyboardInterrupt:
                if self.lines.begun():
                    print(file=sys.stderr)
                    continue
                if asked_to_leave:
                    print(file=sys.stderr)
                    return
                asked_to_leave = True
                self.note("\n(Ctrl-C again leaves, and so do Ctrl-D and /exit)")
                continue
            asked_to_leave = False
            if text is None:
                if self.lines.terminal:
                    print(file=sys.stderr)
                return
            if text.strip() in ("/exit", "/quit", "/bye"):
                return
            try:
                self.take(text)
            except Error as error:
                if not self.lines.terminal:
                    raise
                self.note(str(error))

    def take(self, text: str) -> None:
        """A message, or a command."""
        if not text.strip():
            return
        if text.startswith("/") and not text.startswith("//"):
            name, _, rest = text[1:].partition(" ")
            if name not in COMMANDS:
                name = "".join(name.splitlines()[:1])[:40]
                raise RequestError(f"no command /{name}; /help lists them, //{name} says it to the model")
            if rest.strip() and name in ALONE:
                rest = " ".join(rest.split())
                raise RequestError(f"/{name} stands alone; //{name} {rest[:40]}{'…' * (len(rest) > 40)} says it to the model")
            getattr(self, f"do_{name}")(rest.strip())
            return
        self.show(lambda **how: self.chat.ask(text[1:] if text.startswith("//") else text, **how))

    def show(self, ask) -> None:
        """An answer as it comes."""
        write = _write
        if self.pretty:
            _write("\033[2m…\033[0m")  # until the first word, which takes its place
            write = _Instead("\r\033[K")
        wrapped = Wrap(write) if self.pretty else _Plain(write)
        interrupts = _Interrupts(soft=True)
        try:
            with interrupts, _Quiet():
                answer = ask(on_text=wrapped.put, stopped=lambda: interrupts.count > 0)
        finally:
            wrapped.end()
            if self.pretty and not write.begun:
                write("")
        if answer.text.strip():
            _write("\n\n" if self.pretty else "\n")
        for note in self.notes(answer):
            self.note(note)

    def notes(self, answer: Answer) -> list[str]:
        found = []
        if answer.dropped:
            found.append(f"(the context is full: the oldest {_turns(answer.dropped)} not read any more)")
        if answer.finish_reason == "stopped":
            early = " before the first word; your message is not kept"
            found.append(f"(stopped{'' if answer.text.strip() else early})")
        elif answer.finish_reason == "length":
            cut = "max_tokens" if answer.written >= self.chat.max_tokens else "the context's end"
            found.append(f"(cut at {answer.written:,} tokens, {cut})")
        elif not answer.text.strip():
            found.append("(the model has nothing to say to this)")
        if self.stats:
            rate = f", {(answer.written - 1) / answer.rest:.1f}/s" if answer.written > 1 and answer.rest else ""
            written = f"{answer.written:,} token{'s' * (answer.written != 1)}"
            found.append(f"({written}{rate}, first after {answer.first:.2f} s; "
                         f"read {answer.prompt - answer.reused:,}, kept {answer.reused:,})")
        return found

    def note(self, text: str) -> None:
        """Something about the conversation: dim, and on a terminal wrapped at words."""
        sys.stdout.flush()
        if self.pretty:
            columns = shutil.get_terminal_size().columns - 1
            lines = [textwrap.wrap(line, columns, subsequent_indent=_indent(line)) or [""] for line in text.split("\n")]
            text = "\033[2m" + "\n".join(part for line in lines for part in line) + "\033[0m"
        print(text, file=sys.stderr, flush=True)

    # commands, each with what stands behind it

    def do_help(self, rest: str) -> None:
        self.note(HELP)

    def do_system(self, rest: str) -> None:
        if rest:
            self.chat.set_system(None if rest == "none" else rest)
        self.note(self.chat.system or "(as the model's template has it)")

    def do_clear(self, rest: str) -> None:
        self.chat.clear()
        self.note("(forgotten)")

    def do_regenerate(self, rest: str) -> None:
        self.show(self.chat.again)

    def do_undo(self, rest: str) -> None:
        question = " ".join(self.chat.undo().split())
        self.note(f"(forgotten: {question[:59] + '…' if len(question) > 60 else question})")

    def do_set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        name, value = name.replace("-", "_"), value.strip().lstrip("= ")
        if name and name not in SETTINGS:
            raise RequestError(f"no setting {name[:40]}; there are {', '.join(SETTINGS)}")
        if name and not value:
            raise RequestError(f"give a value: /set {name} {'0.7' if name not in WHOLE else 7}")
        if name:
            try:
                number = value in ("true", "on") if name == "greedy" else int(value) if name in WHOLE else float(value)
            except ValueError:
                raise RequestError(f"{name} {value}: not a {'whole ' if name in WHOLE else ''}number") from None
            self.chat.set(name, number)
        sampling = self.chat.sampling
        told = [f"{key} {getattr(sampling, key):g}" for key in SHOWN if key in ("temperature", "top_p") or
                getattr(sampling, key) != type(sampling).__dataclass_fields__[key].default]
        self.note(", ".join([*told, f"max_tokens {self.chat.max_tokens}", f"seed {self.chat.seed}"]))

    def do_save(self, rest: str) -> None:
        if not rest:
            raise RequestError("give a file: /save talk.json")
        replaced = self.chat.save(rest)
        self.note(f"({len(self.chat.messages)} messages in {rest}{', in place of what it held' if replaced else ''})")

    def do_load(self, rest: str) -> None:
        if not rest:
            raise RequestError("give a file: /load talk.json")
        self.chat.load(rest)
        self.note(f"({len(self.chat.messages)} messages from {rest})")

    def do_tokens(self, rest: str) -> None:
        used, context = self.chat.tokens(), self.chat.loaded.model.config.context
        self.note(f"({used:,} tokens of {context:,}, {100 * used / context:.0f} %)")

    def do_stats(self, rest: str) -> None:
        self.stats = not self.stats
        self.note("(the speed is told)" if self.stats else "(the speed is not told)")


def _indent(line: str) -> str:
    """Of the list of commands, the column that says what each does."""
    name, gap, _ = line.partition("   ")
    return " " * (len(line) - len(line[len(name) :].lstrip())) if gap else ""


def _turns(n: int) -> str:
    return "turn is" if n == 1 else f"{n} turns are"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class _Plain:
    """What `Wrap` does, without it: a pipe gets the text as it is."""

    def __init__(self, write):
        self.write, self.begun = write, False

    def put(self, piece: str) -> None:
        piece = piece if self.begun else piece.lstrip()
        self.begun = self.begun or bool(piece)
        self.write(piece)

    def end(self) -> None:
        pass


class _Instead:
    """Writes, the first time after what takes away that which stands there."""

    def __init__(self, before: str):
        self.before, self.begun = before, False

    def __call__(self, text: str) -> None:
        _write(text if self.begun else self.before + text)
        self.begun = True


class _Interrupts:
    """What Ctrl-C does meanwhile: it raises KeyboardInterrupt, or (`soft`) is counted, so that an answer can end at a
    safe point."""

    def __init__(self, soft: bool = False):
        self.soft, self.count = soft, 0

    def __enter__(self) -> "_Interrupts":
        self.before = signal.signal(signal.SIGINT, self._counted if self.soft else signal.default_int_handler)
        return self

    def __exit__(self, *_) -> None:
        signal.signal(signal.SIGINT, self.before)

    def _counted(self, number, frame) -> None:
        self.count += 1


class _Quiet:
    """Keys typed meanwhile do not stand in the middle of the answer; they are read after it."""

    def __enter__(self) -> None:
        self.before = None
        with contextlib.suppress(ImportError, OSError, ValueError):  # no terminal, or one of another kind
            import termios

            if sys.stdin.isatty():
                self.before = termios.tcgetattr(sys.stdin)
                changed = list(self.before)
                changed[3] &= ~(termios.ECHO | termios.ICANON)  # a Ctrl-D stays a key as well
                termios.tcsetattr(sys.stdin, termios.TCSANOW, changed)

    def __exit__(self, *_) -> None:
        if self.before is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSANOW, self.before)
