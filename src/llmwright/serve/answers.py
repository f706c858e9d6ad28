"""What the engine wrote, in the forms of OpenAI's API: whole answers, and the pieces of a stream."""

import codecs
import json
import time
from dataclasses import dataclass, field

from ..tokens.tokenizer import Tokenizer
from .log import fresh_name
from .worker import Text

MARK = "\ufdd0text\ufdd0"  # noncharacters: in no text
UTF8 = codecs.getincrementaldecoder("utf-8")
encode = json.JSONEncoder().encode  # json.dumps without its many options
NEVER = -9999.0  # OpenAI's figure where a log-probability is minus infinity, which JSON cannot write


@dataclass
class Choice:
    """One text as it comes."""

    text: str = ""
    n_tokens: int = 0
    finish: str | None = None
    log_probs: list = field(default_factory=list)  # of its tokens: (id, log-probability, the likeliest ones)


class Answer:
    """All choices of a request. `chat`: of which kind; `ends`: tokens that end a text, which are no part of it."""

    def __init__(self, model: str, tokenizer: Tokenizer, ends, texts: int, *, chat: bool, log_probs: bool = False,
                 before: list[str] | None = None):
        self.model, self.tokenizer, self.ends, self.chat, self.with_log_probs = model, tokenizer, ends, chat, log_probs
        self.id = ("chatcmpl-" if chat else "cmpl-") + fresh_name()
        self.created = int(time.time())
        self.choices = [Choice() for _ in range(texts)]
        self.before = before or [""] * texts  # what echo puts before each text
        self.scored = before is not None and log_probs  # the prompt's tokens come with theirs
        self.offsets = [0 if self.scored else len(text) for text in self.before]
        self.decoders = [UTF8("replace") for _ in self.before]
        self.silent = {*ends, tokenizer.bos_id}  # tokens that are no text, whatever the tokenizer says of them
        self.frames: dict[tuple[int, bool], list[bytes]] = {}

    def take(self, index: int, event: Text) -> list:
        """Add an event to its choice; returns the log-probabilities that came with it."""
        choice = self.choices[index]
        choice.text += event.piece
        choice.n_tokens += len(event.ids)
        choice.finish = event.finish or choice.finish
        if not self.with_log_probs:
            return []
        tops = event.top or [[]] * len(event.ids)
        new = [entry for entry in zip(event.ids, event.log_probs, tops) if self.scored or entry[0] not in self.ends]
        if event.prompt:
            new = [*event.prompt, *new]
            first = next((i for i, *_ in new if self._said(i)), None)
            if first is not None and self.tokenizer.token_bytes(first)[:1] == b" " and self.before[index][:1] != " ":
                self.offsets[index] = -1  # the tokenizer puts a space before a text
        choice.log_probs += new
        return new

    def usage(self, prompt_tokens: int, reused: int) -> dict:
        written = sum(choice.n_tokens for choice in self.choices)
        return {
            "prompt_tokens": prompt_tokens, "completion_tokens": written, "total_tokens": prompt_tokens + written,
            "prompt_tokens_details": {"cached_tokens": reused},
        }

    def whole(self, usage: dict, calls: list | None = None) -> dict:
        """The answer in one. `calls`: of each choice, the tool calls found in it (and its text without them)."""
        made = []
        for index, choice in enumerate(self.choices):
            entry: dict = {"index": index}
            text, found = calls[index] if calls else (choice.text, [])
            if self.chat:
                entry["message"] = {"role": "assistant", "content": text if text or not found else None, "refusal": None}
                if found:
                    entry["message"]["tool_calls"] = found
            else:
                entry["text"] = self.before[index] + text
            entry["logprobs"] = self.logprobs(index, choice.log_probs)
            entry["finish_reason"] = "tool_calls" if found else choice.finish
            made.append(entry)
        return {**self._head("chat.completion" if self.chat else "text_completion"), "choices": made, "usage": usage}

    def chunk(self, index: int, text: str, new: list, finish: str | None, *, usage: bool = False, **delta) -> bytes:
        """A piece of a stream, as one event. `delta`: what else a chat's delta has."""
        if text and not (new or finish or delta or self.with_log_probs):
            return self._plain_chunk(index, text, usage)
        entry: dict = {"index": index}
        if self.chat:
            entry["delta"] = {**delta, **({"content": text} if text or new else {})}
        else:
            entry["text"] = text
        entry["logprobs"] = self.logprobs(index, new)
        entry["finish_reason"] = finish
        head = self._head("chat.completion.chunk" if self.chat else "text_completion")
        return event({**head, "choices": [entry], **({"usage": None} if usage else {})})

    def _plain_chunk(self, index: int, text: str, usage: bool) -> bytes:
        """`chunk` of nothing but text: nearly all of them are, so what is the same in each is written once."""
        if (index, usage) not in self.frames:
            made = self.chunk(index, "", [], None, usage=usage, **({"content": MARK} if self.chat else {}))
            made = made if self.chat else made.replace(b'"text":""', b'"text":' + json.dumps(MARK).encode())
            self.frames[index, usage] = made.split(json.dumps(MARK).encode())
        before, after = self.frames[index, usage]
        return before + encode(text).encode() + after

    def last(self, usage: dict) -> bytes:
        head = self._head("chat.completion.chunk" if self.chat else "text_completion")
        return event({**head, "choices": [], "usage": usage})

    def logprobs(self, index: int, entries: list) -> dict | None:
        if not self.with_log_probs:
            return None
        if self.chat:
            return {"content": [
                {**self._token(i, value), "top_logprobs": [self._token(*other) for other in top]}
                for i, value, top in entries
            ], "refusal": None}
        names = [self._name(i) for i, _, _ in entries]
        offsets = []
        for i, _, _ in entries:
            offsets.append(max(0, self.offsets[index]))
            self.offsets[index] += len(self.decoders[index].decode(self._said(i)))
        return {
            "tokens": names, "token_logprobs": [_number(value) for _, value, _ in entries], "text_offset": offsets,
            "top_logprobs": [
                None if top is None else {self._name(i): _number(value) for i, value in top} for _, _, top in entries
            ],
        }

    def _head(self, kind: str) -> dict:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _said(self, i: int) -> bytes:
        """The bytes that a token adds to a text."""
        if i in self.silent:
            return b""
        return self.tokenizer.visible_bytes(i) if self.tokenizer.byte_level else self.tokenizer.token_bytes(i)

    def _name(self, i: int) -> str:
        """A token as the key of a table, so that no two have the same: what is no text by itself is written as bytes, in
        OpenAI's form."""
        content = self.tokenizer.token_bytes(i)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)

    def _token(self, i: int, value: float) -> dict:
        content = self.tokenizer.token_bytes(i)
        return {"token": content.decode("utf-8", "replace"), "logprob": _number(value), "bytes": list(content)}


DONE = b"data: [DONE]\n\n"


def event(data: dict) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def _number(value: float | None) -> float | None:
    return None if value is None else max(value, NEVER)
