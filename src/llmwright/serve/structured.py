"""Answers that follow a grammar (llguidance): before each token, those that would leave it are taken out of the choice.

A grammar comes as a JSON schema, as llguidance's dialect of Lark, or as a regular expression.
"""

import json

from ..errors import RequestError
from .errors import ApiError
from .protocol import ResponseFormat

LONGEST = 200_000  # characters of a grammar
# Where any space is allowed between the parts of an object, small models write nothing else and never come to its end.
COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def grammar(wanted: ResponseFormat | None) -> str | None:
    """As llguidance reads it; None where any text will do. Raises ApiError for one that it cannot read."""
    if wanted is None or wanted.type == "text":
        return None
    matcher = _library().LLMatcher
    param = "response_format"
    try:
        if wanted.type == "grammar":
            param, given = "response_format.grammar", wanted.grammar
            made = (matcher.grammar_from_lark if given.syntax == "lark" else matcher.grammar_from_regex)(given.definition)
        else:
            schema = {"type": "object"} if wanted.type == "json_object" else wanted.json_schema.schema_
            param = "response_format.json_schema.schema" if wanted.type == "json_schema" else param
            made = matcher.grammar_from_json_schema(json.dumps(schema), COMPACT)
        if len(made) > LONGEST:
            raise ValueError(f"it has {len(made):,} characters; at most {LONGEST:,} are taken")
        fault = matcher.validate_grammar(made, None)
    except (ValueError, RecursionError) as error:
        fault = str(error) or type(error).__name__
    if fault:
        raise ApiError(400, f"{param}: {str(fault).splitlines()[0][:300]}", param=param, code="invalid_grammar")
    return made


def lark(source: str, param: str) -> str:
    """A grammar that this server made of what a client sent as `param`. Raises ApiError."""
    matcher = _library().LLMatcher
    made = matcher.grammar_from_lark(source)
    if fault := matcher.validate_grammar(made, None):
        raise ApiError(400, f"{param}: {fault.splitlines()[0][:300]}", param=param, code="invalid_grammar")
    return made


class Grammars:
    """Makes the masks. `ends`: the tokens that may follow a text that is complete."""

    def __init__(self, tokenizer, ends: tuple[int, ...]):
        if not ends:
            raise RequestError("it has no token that ends a text")
        self.library = _library()
        self.ends = list(ends)
        self.tokenizer = self.library.LLTokenizer(
            self.library.TokenizerWrapper(_Tokens(tokenizer, ends[0])), n_vocab=tokenizer.vocab_size)

    def maker(self, grammar: str):
        """A function that makes the mask of one text."""
        first = self.library.LLMatcher(self.tokenizer, grammar)
        if first.is_error():
            raise RequestError(f"response_format: {' '.join(first.get_error().split())[:300]}")
        return lambda: Mask(first.deep_copy(), self.ends)


class Mask:
    """Called before each token of one text with its logits (V,), which it changes, and the ids that were written."""

    def __init__(self, matcher, ends: list[int]):
        self.matcher, self.ends, self.read = matcher, ends, 0

    def __call__(self, logits, written: list[int]) -> None:
        import numpy as np
        import torch

        for token in written[self.read :]:
            if not self.matcher.consume_token(token):
                raise RequestError(f"response_format: {self.matcher.get_error().splitlines()[0][:300] or 'left'}")
        self.read = len(written)
        allowed = torch.zeros(len(logits), dtype=torch.bool)
        if not self.matcher.is_stopped():
            bits = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
            found = torch.from_numpy(np.unpackbits(bits, bitorder="little").astype(bool))[: len(logits)]
            allowed[: len(found)] = found
        if self.matcher.is_stopped() or self.matcher.is_accepting():
            allowed[self.ends] = True
        logits.masked_fill_(~allowed.to(logits.device), float("-inf"))
        if not logits.isfinite().any():
            raise RequestError("response_format: the grammar and the other settings leave no token to choose")


class _Tokens:
    """Our tokenizer as llguidance's wrapper wants it."""

    def __init__(self, tokenizer, eos: int):
        self.tokenizer, self.eos_token_id, self.bos_token_id = tokenizer, eos, tokenizer.bos_id
        special = set(tokenizer.special_tokens.values())
        self.special_token_ids = sorted(special)
        self.tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]

    def __call__(self, text) -> list[int]:
        return list(self.tokenizer.encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text))


def _library():
    try:
        import llguidance
    except ImportError:
        raise ApiError(400, "response_format needs llguidance: pip install 'llmwright[serve]'",
                       param="response_format") from None
    return llguidance
