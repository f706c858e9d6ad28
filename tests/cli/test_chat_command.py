"""`llmwright chat`: answers on stdout, one a line of a pipe; a terminal's keys; commands; what is wrong in one line."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.cli import run
from llmwright.engine.chat import Chat
from llmwright.engine.language_model import load
from llmwright.model.build import new
from llmwright.tokens.tokenizer import Tokenizer
from llmwright.tokens.train import train

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ '<|endoftext|>' if m.role == 'assistant' else '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
GREEDY = ["--temperature", "0", "--max-tokens", "8", "--dtype", "float32"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("chat") / "m"
    text = (Path(sysconfig.get_path("stdlib")) / "ast.py").read_text()
    made = train([text], "bpe", 400)
    tokenizer = Tokenizer(made.tree, {**made.config, "chat_template": TEMPLATE})
    shape = dict(model_type="qwen3", hidden_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=16,
                 num_key_value_heads=2, intermediate_size=96, max_position_embeddings=4000, initializer_range=0.3,
                 vocab_size=tokenizer.vocab_size, eos_token_id=tokenizer.eos_id, tie_word_embeddings=True)
    directory.save(new(families.read_config(shape), seed=1), path, tokenizer=tokenizer)
    return str(path)


@pytest.fixture
def typed(monkeypatch):
    """typed(text): what comes from the pipe."""
    def feed(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    return feed


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMWRIGHT_CACHE", str(tmp_path / "cache"))


def talk(model_dir: str, *questions: str, system: str | None = None) -> list[str]:
    made = Chat(load(model_dir), system, temperature=0.0, max_tokens=8)
    return [made.ask(question).text for question in questions]


def test_each_line_of_a_pipe_is_a_turn_and_answers_alone_go_to_stdout(model_dir, typed, capsys):
    typed("import os\n\nimport sys\r\nWie groß? 🙂")
    assert run(["chat", model_dir, *GREEDY]) == 0
    out, err = capsys.readouterr()
    wanted = talk(model_dir, "import os", "import sys", "Wie groß? 🙂")
    assert out == "".join(f"{text.lstrip()}\n" for text in wanted if text.strip())
    assert "\033" not in out + err and set(err.splitlines()) <= {"(cut at 8 tokens, max_tokens)"}


def test_several_lines_are_one_message(model_dir, typed, capsys):
    typed('one\\\ntwo\n"""\ndef f(x):\n    return x\n"""\n"""all in one"""\n//slash\nlast\\')
    assert run(["chat", model_dir, *GREEDY]) == 0
    wanted = talk(model_dir, "one\ntwo", "def f(x):\n    return x", "all in one", "/slash", "last")
    assert capsys.readouterr().out == "".join(f"{text.lstrip()}\n" for text in wanted if text.strip())


def test_commands_do_what_they_say(model_dir, typed, capsys, tmp_path):
    file = tmp_path / "talk.json"
    typed(f"/help\n/system Be brief\n/system\nimport os\nimport sys\n/undo\n/save {file}\n/tokens\n/clear\n/tokens\n"
          f"/load {file}\nimport re\n/regenerate\n/set temperature 0.5\n/set top-k 7\n/set\n/stats\nx\n/system none\n"
          f"/exit\nnever read")
    assert run(["chat", model_dir, *GREEDY, "--seed", "5"]) == 0
    out, err = capsys.readouterr()
    saved = json.loads(file.read_text())["messages"]
    assert [m["content"] for m in saved if m["role"] != "assistant"] == ["Be brief", "import os"]
    first, second = talk(model_dir, "import os", "import re", system="Be brief")
    assert out.startswith(f"{first.lstrip()}\n") and out.count(f"{second.lstrip()}\n") >= 2  # greedy: again the same
    for said in ("/regenerate       another answer", "Be brief\nBe brief\n", "(forgotten: import sys)",
                 f"(3 messages in {file})", "(forgotten)\n", f"(3 messages from {file})",
                 "temperature 0.5, top_p 0.9, top_k 7, repetition_penalty 1.1, max_tokens 8, seed 5",
                 "(the speed is told)", "first after", "(as the model's template has it)"):
        assert said in err, said
    assert re.findall(r"\((\d+) tokens of 4,000, \d+ %\)", err)[0] > re.findall(r"\((\d+) tokens of", err)[1]


@pytest.mark.parametrize("lines, said", [
    ("/nonsense\nx", "no command /nonsense; /help lists them"), ("/undo", "nothing was asked yet"),
    ("/regenerate", "nothing was asked yet"), ("/set temperature", "give a value"), ("/set tempo 1", "tempo"),
    ("/set temperature warm", "not a number"), ("/set top_k 1.5", "not a whole number"), ("/save", "give a file"),
    ("/set temperature -1", "temperature -1.0 is not allowed"), ("/load", "give a file"), ("/load no.json", "cannot be read"),
    ("/clear now", "/clear stands alone; //clear now says it to the model"), ("/exit at once", "/exit stands alone"),
    ("/save mine.txt", "mine.txt: it is there already, and no saved conversation"),
    ("/save a\0b", "cannot be written"), ("/save .", "cannot be written"), ("word " * 5000, "and the model reads 4,000"),
])
def test_what_is_wrong_in_a_pipe_ends_it_with_one_line(model_dir, typed, capsys, lines, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    typed(lines + "\nmore")
    code = run(["chat", model_dir, *GREEDY])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1, err
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("arguments, said", [
    (["nowhere"], "nowhere: no such file or directory"), (["M", "--temperature", "-1"], "temperature -1.0"),
    (["M", "--max-tokens", "0"], "max_tokens 0"), (["M", "--dtype", "int8"], "dtype 'int8' is for encoders"),
    (["M", "--dtype", "half"], "dtype 'half'"), (["M", "--load", "no.json"], "no.json: cannot be read"),
    (["M", "--device", "foo"], "device 'foo'"), (["M", "--temperature", "0", "--top-p", "0.5"], "contradict"),
])
def test_a_wrong_request_is_one_line_and_exit_code_2(model_dir, typed, capsys, arguments, said):
    typed("x")
    assert run(["chat", *(model_dir if a == "M" else a for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1


def test_a_model_without_a_template_says_how_to_complete_text_instead(model_dir, typed, capsys):
    (Path(model_dir) / "chat_template.jinja").rename(aside := Path(model_dir) / "aside")
    try:
        typed("x")
        assert run(["chat", model_dir]) == 2
        err = capsys.readouterr().err
        assert "has no chat template" in err and f"llmwright generate {model_dir}" in err and len(err.splitlines()) == 1
        assert run(["generate", model_dir, "x", "--chat"]) == 2
    finally:
        aside.rename(Path(model_dir) / "chat_template.jinja")


def test_generate_asks_a_chat_model_one_question(model_dir, capsys):
    assert run(["generate", model_dir, "import os", "--chat", "--greedy", "--max-tokens", "8"]) == 0
    assert capsys.readouterr().out == talk(model_dir, "import os")[0] + "\n"
    command = ["generate", model_dir, "import os", "--chat", "--system", "Be brief", "--greedy", "--max-tokens", "8"]
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["generations"][0]
    assert found["text"] == talk(model_dir, "import os", system="Be brief")[0]
    assert found["prompt"] == "<system>Be brief\n<user>import os\n<assistant>"
    assert run([*command, "--explain", "--steps", "2"]) == 0
    assert "<system>Be brief" in capsys.readouterr().out
    assert run(["generate", model_dir, "x", "--system", "Be brief"]) == 2
    assert "give --chat too" in capsys.readouterr().err


# a terminal


BEGUN = r"\x1b\[K[\s\S]{30}"  # what is written where the … stood


class Terminal:
    """The program in a terminal of 80 columns."""

    def __init__(self, *arguments: str, **environment: str):
        self.master, slave = pty.openpty()
        import fcntl
        import struct
        import termios

        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmwright", *arguments], stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=self._control,
            env={**os.environ, "TERM": "xterm", "INPUTRC": "/dev/null", **environment},
        )
        os.close(slave)
        self.shown = ""

    @staticmethod
    def _control():
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal

    def press(self, keys: str) -> None:
        if keys == "\x03":  # the prompt is there a moment before Python waits for keys; a signal in between waits for one
            time.sleep(0.5)
        os.write(self.master, keys.encode())

    def wait(self, pattern: str, seconds: float = 60) -> str:
        """Until the pattern is shown; returns what was shown until then, and forgets it."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            left = end - time.monotonic()
            assert left > 0, f"{pattern!r} did not come; there is {self.shown!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.shown += os.read(self.master, 65536).decode("utf-8", "replace")
                except OSError:  # the program ended
                    assert re.search(pattern, self.shown), f"{pattern!r} did not come; there was {self.shown!r}"
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before


def test_a_terminal_stops_answers_edits_lines_and_leaves(model_dir, tmp_path):
    made = Terminal("chat", model_dir, "--temperature", "1.5", "--max-tokens", "1000", "--seed", "1", "--dtype",
                    "float32", LLMWRIGHT_CACHE=str(tmp_path))
    try:
        made.wait("Ctrl-D leaves")
        made.wait("> ")
        made.press("/set min_tokens 1000\r")
        made.wait("min_tokens 1000")
        made.wait("> ")
        made.press("import os\r")
        made.wait(BEGUN)  # it answers
        made.press("\x03")
        assert "^C" not in made.wait(r"\(stopped\)")
        made.wait("> ")
        made.press("import os\r")
        made.wait(BEGUN)
        made.press("typed ahead")
        assert "typed ahead" not in made.wait(r"\(cut at 1,000 tokens, max_tokens\)")  # not in the middle of the answer
        made.wait("> [^>]*typed ahead")  # but ready to be sent
        made.press("\x15/set min_tokens 0\r")
        made.wait("seed 1")
        made.wait("> ")
        made.press("/set max_tokens 4\r")  # Ctrl-U takes it away
        made.wait("max_tokens 4, seed 1")
        made.wait("> ")
        made.press("\x1b[200~one\n\n  two\x1b[201~\r")  # a paste
        made.wait(r"\(cut at 4 tokens, max_tokens\)")
        made.wait("> ")
        made.press(f"/save {tmp_path / 'talk.json'}\r")
        made.wait("6 messages in")
        made.wait("> ")
        assert json.loads((tmp_path / "talk.json").read_text())["messages"][4]["content"] == "one\n\n  two"
        made.press("/undo no")
        made.wait("/undo no")
        made.press("\x03")  # a line that was begun is dropped, and that alone
        made.wait("\n.*> ")
        made.press("/nonsense\r")
        made.wait("no command /nonsense")
        made.wait("> ")
        made.press("\x03")
        made.wait("Ctrl-C again leaves")
        made.wait("> ")
        made.press("import os\r/stats\r\x04")  # typed ahead, a Ctrl-D too: each is taken in its turn
        made.wait(r"\(the speed is told\)")
        assert made.process.wait(30) == 0
        assert "one" in (tmp_path / "chat_history").read_text()
        assert (tmp_path / "chat_history").stat().st_mode & 0o777 == 0o600
    finally:
        made.process.kill()
        os.close(made.master)


@pytest.mark.parametrize("said", ["/", "/ help", "/\u2028", "//"])
def test_a_slash_alone_is_no_command_and_no_end(model_dir, said):
    done = subprocess.run([sys.executable, "-m", "llmwright", "chat", model_dir, "--max-tokens", "3"], input=f"{said}\n",
                          capture_output=True, text=True, timeout=100)
    assert "defect" not in done.stderr and (said == "//" or "no command /" in done.stderr), done.stderr
