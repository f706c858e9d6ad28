"""The tokenizer of a data directory: loaded, or trained on its training text, with the tokens that the recipe's objective
needs."""

from collections.abc import Iterable

from .. import recipe
from ..errors import RequestError
from ..progress import Progress


def make_tokenizer(wanted: recipe.Tokenizer, texts: Iterable[str], progress: Progress, closed: bool = False):
    """`texts`: the training text, read only where a tokenizer is trained, and at most `wanted.sample_bytes` of it.
    `closed`: whether a text ends with the end token, as an encoder-decoder reads it, and does not begin with it.

    Raises RequestError when the tokenizer that is loaded lacks a token that the recipe needs: a published vocabulary is
    never changed.
    """
    if wanted.path:
        from ..tokens.load import load

        tokenizer = load(wanted.path)
        if wanted.mask and tokenizer.mask_id is None:
            raise RequestError(f"tokenizer.path: {wanted.path} has no mask token, which train.objective masked needs: name "
                               "one that has (its tokenizer_config.json says mask_token), or leave path out to train one")
        if wanted.sentinels and not tokenizer.sentinel_ids:
            raise RequestError(f"tokenizer.path: {wanted.path} has no sentinels (<extra_id_0>, …), which train.objective span "
                               "needs: name one that has, as a T5 model directory does, or leave path out to train one")
        return tokenizer
    from ..tokens.train import train

    return train(_at_most(texts, wanted.sample_bytes), wanted.kind, wanted.vocab_size, progress, pattern=wanted.pattern,
                 mask=wanted.mask, sentinels=wanted.sentinels, closed=closed or wanted.sentinels > 0)


def _at_most(texts: Iterable[str], n_bytes: int):
    for text in texts:
        if n_bytes <= 0:
            return
        n_bytes -= len(text.encode("utf-8", "replace"))
        yield text
