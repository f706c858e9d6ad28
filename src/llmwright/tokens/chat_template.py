"""A conversation as the text a chat model was trained on: the model's own template, in Jinja's language.

The template comes with the model: `chat_template.jinja`, or `chat_template` in tokenizer_config.json (a text, or a list
of named ones), or the same key of a GGUF file's metadata. It runs in Jinja's sandbox with the settings that
transformers renders with, so the text is the same; what it may cost is bounded, since it is a stranger's program.

A special token counts as one only where the template wrote it. Where a message holds its text (`<|im_end|>`), that
stays text, or whoever writes a message could end it and speak for another. So before rendering, an invisible character
that no text has (U+FDD0) goes before each place of a message where a special token could begin; what is rendered
carries it along, and a special token behind one is the message's. The same text must come out as without the marks.
Should the template look so closely at a message that it does not, only whole special tokens are marked.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from ..errors import RequestError
from . import published

FILE = "chat_template.jinja"
LONGEST = 1_000_000  # characters of a template; the longest published ones have some 20,000
MARK, TAG = "\ufdd0", "\ufdd1"  # noncharacters: not for text (Unicode 16, section 23.7)
SUCH = '{"role": "user", "content": "Hello"}'
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class ChatTemplate:
    """`render` gives the text, `encode` the ids, `ends` the tokens that end an answer.

    source: the template. tokenizer: whose special tokens it writes. where: what a message about it names.
    """

    def __init__(self, source: str, tokenizer, where: str = "the model"):
        import jinja2

        from . import template_sandbox

        self.tokenizer, self.where = tokenizer, where
        if len(source) > LONGEST:
            raise self._error(f"has {len(source):,} characters; at most {LONGEST:,} are allowed")
        try:
            self.compiled = template_sandbox.compile(source)
        except jinja2.TemplateSyntaxError as error:
            raise self._error(f"cannot be read: line {error.lineno}: {error.message}") from None
        except (jinja2.TemplateError, RecursionError, SyntaxError, MemoryError) as error:
            raise self._error(f"cannot be read: {_first_line(error)}") from None

    def render(self, messages: Sequence[Mapping], **options) -> str:
        """The text of `messages`, each {"role": …, "content": …, …}.

        add_generation_prompt: whether the beginning of an answer follows. continue_final_message: whether the text ends
        with the last message's content, for the model to go on with. tools, documents: as transformers takes them.
        Other options go to the template (enable_thinking=False).

        Raises RequestError when the template refuses the messages, calls for what they lack, or costs too much.
        """
        return self._render(*_arguments(messages, **options))

    def encode(self, messages: Sequence[Mapping], **options) -> list[int]:
        """The ids of what `render` gives. Nothing goes before it: a text's beginning is the template's to write."""
        arguments = _arguments(messages, **options)
        text = self._render(*arguments)
        if not self.tokenizer.special_tokens:
            return self.tokenizer.encode(text)
        for marking in (self._begins, self._special):
            marked = self._render(*(_marked(argument, marking) for argument in arguments))
            if marked.replace(MARK, "") == text:
                return self._encode(marked, text)
        found = next(iter(self._special.findall("\n".join(map(str, arguments)))), "")
        raise self._error(f"looks for {found} in a message, where it is only text: leave it out")

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The special tokens that may follow an answer: the first behind an assistant's message, if there is one."""
        content = "Good."
        try:
            text = self.render([{"role": "user", "content": "Hello."}, {"role": "assistant", "content": content}])
        except RequestError:
            return ()
        after = text[text.rindex(content) + len(content) :] if content in text else ""
        found = self._special.search(after)
        return (self.tokenizer.special_tokens[found[0]],) if found else ()

    def _render(self, messages: list[dict], variables: dict) -> str:
        import jinja2

        from . import template_sandbox

        variables = {**self._names, **variables}
        go_on = variables.pop("continue_final_message")
        if go_on:
            *before, last = messages
            messages = [*before, {**last, "content": last["content"] + TAG + " "}]
        try:
            text = template_sandbox.render(self.compiled, {**variables, "messages": messages})
        except template_sandbox.TooMuch as error:
            raise self._error(f"costs too much: {error}") from None
        except jinja2.UndefinedError as error:
            raise self._error(f"calls for what the messages lack: {_first_line(error)}") from None
        except jinja2.sandbox.SecurityError as error:
            raise self._error(f"does what a template may not: {_first_line(error)}") from None
        except jinja2.TemplateError as error:
            raise self._error(f"refuses these messages: {_first_line(error)}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError,
                MemoryError) as error:
            raise self._error(f"fails with these messages: {_first_line(error)}") from None
        if not go_on:
            return text
        if TAG not in text:
            raise self._error("leaves the last message out, so there is nothing to go on with")
        end = text.rindex(TAG)
        # the template cuts the spaces around a message, so those before the tag would have gone too
        return text[:end] if text.startswith(TAG + " ", end) else text[:end].rstrip()

    def _encode(self, marked: str, text: str) -> list[int]:
        own = [found for found in self._special.finditer(marked) if not marked.endswith(MARK, 0, found.start())]
        places = [found.start() - marked.count(MARK, 0, found.start()) for found in own]
        if places == [found.start() for found in self._special.finditer(text)]:
            return self.tokenizer.encode(text, specials=True)
        # what stands between the template's special tokens, each piece by itself: a message has one as text
        ids, at, strip = [], 0, False
        for found in [*own, None]:
            piece = marked[at : found.start() if found else len(marked)].replace(MARK, "")
            added = self._added[found[0]] if found else {}
            piece = piece.lstrip() if strip else piece
            piece = piece.rstrip() if added.get("lstrip") else piece
            ids += self._inside(piece) if at else self.tokenizer.encode(piece)
            if found:
                ids.append(added["id"])
                at, strip = found.end(), added.get("rstrip")
        return ids

    def _inside(self, piece: str) -> list[int]:
        """The ids of `piece`, no special tokens among them, as they are inside a text: SentencePiece puts a space
        before the beginning of one."""
        before = self.tokenizer.encode("\n")
        ids = self.tokenizer.encode("\n" + piece)
        return ids[len(before) :] if ids[: len(before)] == before else self.tokenizer.encode(piece)

    @cached_property
    def _added(self) -> dict[str, dict]:
        return {token["content"]: token for token in self.tokenizer.tree["added_tokens"]}

    @cached_property
    def _special(self) -> re.Pattern:
        """A special token, of several that begin alike the longest."""
        tokens = sorted(self.tokenizer.special_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens)) or "(?!)")

    @cached_property
    def _begins(self) -> re.Pattern:
        """A character that one begins with."""
        return re.compile(f"[{re.escape(''.join({token[0] for token in self.tokenizer.special_tokens}))}]")

    @cached_property
    def _names(self) -> dict[str, str]:
        """bos_token, eos_token, …, as tokenizer_config.json names them."""
        found = {}
        for role in ROLES:
            token = self.tokenizer.config.get(f"{role}_token")
            token = token.get("content") if isinstance(token, Mapping) else token
            i = getattr(self.tokenizer, f"{role}_id", None)
            if token is None and i is not None:
                token = self.tokenizer.token(i)
            if isinstance(token, str):
                found[f"{role}_token"] = token
        return found

    def _error(self, what: str) -> RequestError:
        return RequestError(f"{self.where}: its chat template {what}")


def find(tokenizer, where: str = "the model", *, tools: bool = False) -> ChatTemplate | None:
    """The template of a tokenizer, or None. Of several by name that for `tools`, or the default."""
    found = tokenizer.config.get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, Mapping)}
        found = (named.get("tool_use") if tools else None) or named.get("default")
        if found is None and named:
            names = ", ".join(map(str, named))
            raise RequestError(f"{where}: it has chat templates named {names}, and none is the default")
    if found is not None and not isinstance(found, str):
        kind = type(found).__name__
        raise RequestError(f"{where}: its chat_template is a {kind}; it must be a text or a list of named ones")
    return ChatTemplate(found, tokenizer, where) if found else None


def beside(folder: Path, config: dict) -> dict:
    """`config`, the content of a tokenizer_config.json, with the templates that lie in files in its `folder`."""
    named = {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / FILE).is_file():
        named["default"] = folder / FILE
    texts = {name: published.read_text(file) for name, file in named.items()}
    if not texts:
        return config
    several = [{"name": name, "template": text} for name, text in texts.items()]
    return {**config, "chat_template": several if len(texts) > 1 else texts.get("default", several)}


def _arguments(
    messages: Sequence[Mapping], *, tools: Sequence | None = None, documents: Sequence | None = None,
    add_generation_prompt: bool = False, continue_final_message: bool = False, **variables,
) -> tuple[list[dict], dict]:
    """Messages and variables as the template sees them: plain data, nothing of the caller's own."""
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise RequestError(f"a conversation is a list of messages, such as [{SUCH}]")
    found = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RequestError(f"message {number} has no role; right is {SUCH}")
        message = {key: value for key, value in message.items() if value is not None}
        if "content" not in message and not message.get("tool_calls"):
            raise RequestError(f"message {number}, of the role {message['role']}, has no content")
        found.append(_plain(message))
    if continue_final_message and add_generation_prompt:
        raise RequestError("continue_final_message and add_generation_prompt contradict each other: leave one out")
    if continue_final_message and not isinstance(found[-1].get("content"), str):
        raise RequestError("continue_final_message: the last message has no text to go on with")
    told = dict(tools=tools, documents=documents, add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message, **variables)
    return found, _plain(told)


def _plain(value):
    """A copy made of JSON's types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str(value).replace(MARK, "").replace(TAG, "")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise RequestError(f"a conversation holds a {type(value).__name__}, {str(value)[:40]!r}; it must be text, numbers, "
                       "lists and tables, as JSON has them")


def _marked(value, where: re.Pattern):
    """`value` with a mark before each place that the pattern finds in its texts."""
    if isinstance(value, dict):
        return {key: _marked(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item, where) for item in value]
    return where.sub(lambda found: MARK + found[0], value) if isinstance(value, str) else value


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
