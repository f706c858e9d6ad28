"""Words that a user names, as the tokens that the sampler knows."""

from dataclasses import replace

from ..errors import RequestError
from .sampler import Sampling


def resolve(sampling: Sampling, tokenizer) -> Sampling:
    """`sampling` with ids in place of words. A bad word is forbidden as it stands and after a space, which most
    tokenizers write as another token."""
    bias = [(token_id(tokenizer, token, "logit_bias"), value) for token, value in sampling.logit_bias]
    sequences: dict[tuple[int, ...], None] = {}
    for word in sampling.bad_words:
        spellings = (word, f" {word}") if isinstance(word, str) else ()
        for ids in [tuple(map(int, tokenizer.encode(s))) for s in spellings] or [tuple(word)]:
            for i in ids:
                _known(tokenizer, i, "bad_words")
            if ids:
                sequences[ids] = None
    return replace(sampling, logit_bias=tuple(bias), bad_words=tuple(sequences))


def token_id(tokenizer, token: int | str, what: str = "stop_tokens") -> int:
    """The id of one token: an id, or the text of a special token, or text that is one token.

    Raises RequestError, which names `what` it is for, when it is none or more than one.
    """
    if isinstance(token, int):
        return _known(tokenizer, token, what)
    if token in tokenizer.special_tokens:
        return tokenizer.special_tokens[token]
    ids = [int(i) for i in tokenizer.encode(token)]
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise RequestError(f"{what}: {token!r} is no token")
    pieces = " ".join(repr(tokenizer.decode([i], skip_specials=False)) for i in ids[:8])
    raise RequestError(f"{what}: {token!r} is {len(ids)} tokens, not one: {pieces}{' …' if len(ids) > 8 else ''}")


def _known(tokenizer, i: int, what: str) -> int:
    if not 0 <= i < tokenizer.vocab_size:
        raise RequestError(f"{what}: there is no token {i}: the vocabulary goes from 0 to {tokenizer.vocab_size - 1}")
    return int(i)
