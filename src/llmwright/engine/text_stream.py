"""Token ids to text, piece by piece, as they come.

A character may be spread over several tokens, and a token's text may depend on the one before it (SentencePiece's
leading space). Byte-level tokens are bytes, and go through a decoder that waits for whole characters. Of others, a piece
is the difference of two decodings of the last few tokens, given out once it ends on a whole character; the same idea as
in text-generation-inference and vLLM. A stop string is looked for in the text, whatever tokens it is made of, and text
that may turn out to be its beginning is held back.
"""

import codecs

CONTEXT = 8  # tokens before the first one that its spelling may depend on


class TextStream:
    """`push(id)` returns the text that is certain now; `finish()` the rest. `text` is all of it so far, `stopped`
    whether a stop string was met: it and what follows are not part of the text."""

    def __init__(self, tokenizer, prompt_ids: list[int], stop: tuple[str, ...] = ()):
        self.tokenizer, self.stop = tokenizer, stop
        self.ids = list(prompt_ids[-CONTEXT:])
        self.first, self.read = 0, len(self.ids)
        self.bytes = codecs.getincrementaldecoder("utf-8")("replace") if tokenizer.byte_level else None
        for i in self.ids if self.bytes else ():
            self.bytes.decode(tokenizer.visible_bytes(i))
        self.open = bool(self.bytes and self.bytes.getstate()[0])  # the prompt ends within a character
        self.text, self.given, self.stopped = "", 0, False

    def push(self, token: int) -> str:
        if self.bytes:
            self._take(self.bytes.decode(self.tokenizer.visible_bytes(token)))
        else:
            self.ids.append(token)
            self._decode(last=False)
        return self._give(last=False)

    def finish(self) -> str:
        if self.bytes:
            self._take(self.bytes.decode(b"", final=True))
        else:
            self._decode(last=True)
        return self._give(last=True)

    def _decode(self, last: bool) -> None:
        known = self.tokenizer.decode(self.ids[self.first : self.read])
        now = self.tokenizer.decode(self.ids[self.first :])
        if len(now) <= len(known) or (now.endswith("\N{REPLACEMENT CHARACTER}") and not last):
            return
        self._take(now[len(known) :])
        self.first, self.read = self.read, len(self.ids)

    def _take(self, new: str) -> None:
        if not new:
            return
        if self.open:  # and what is missing did not come: that is the prompt's damage
            new, self.open = new.removeprefix("\N{REPLACEMENT CHARACTER}"), False
        searched = max(0, len(self.text) - max(map(len, self.stop), default=0))
        self.text += new
        if not self.stop:
            return
        found = [at for at in (self.text.find(s, searched) for s in self.stop) if at >= 0]
        if found and not self.stopped:
            self.text, self.stopped = self.text[: min(found)], True

    def _give(self, last: bool) -> str:
        end = len(self.text)
        if not (last or self.stopped):
            end -= max((_overlap(self.text, s) for s in self.stop), default=0)
        piece, self.given = self.text[self.given : end], max(end, self.given)
        return piece


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are a beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
