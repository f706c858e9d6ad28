"""A prompt as the ids a model reads: what goes around the text, and whether it fits.

A decoder reads the prompt and goes on with it. The encoder of an encoder-decoder reads it as a source, closed by the
end token (Raffel et al. 2020; Marian: Junczys-Dowmunt et al. 2018), and the decoder writes from its start token on.
"""

from collections.abc import Iterable, Sequence

from ..errors import RequestError
from ..model.config import ALiBi, ModelConfig, Relative
from ..model.encoder_decoder import EncoderDecoder
from ..model.transformer import Transformer
from ..tokens import around
from . import words

BOUNDLESS = 10**9  # positions of a scheme that has no last one


def prompt_ids(model: Transformer, tokenizer, prompt: str | Sequence[int], bounded: bool = True) -> list[int]:
    """The ids of `prompt`: of a text with what the tokenizer puts around it, of ids as they are.

    Raises RequestError for a prompt that is empty, unknown to the model, or (`bounded`) fills its context.
    """
    source = isinstance(model, EncoderDecoder)
    if isinstance(prompt, str):
        # a source may hold sentinels: <extra_id_0> marks a span to be written
        text = [int(i) for i in tokenizer.encode(prompt, specials=source and bool(tokenizer.sentinel_ids))]
        end = _first(tokenizer.eos_id, model.config.special("eos"))
        if source:
            ids = text if end is None or not text else [*text, end]
        else:
            begin = tokenizer.bos_id is not None and (begins(tokenizer) or not text)
            ids = [tokenizer.bos_id, *text] if begin else text
    else:
        if not isinstance(prompt, Sequence) or not all(isinstance(i, int) for i in prompt):
            raise RequestError(f"the prompt is a {type(prompt).__name__}: it must be a text, or a list of token ids")
        ids = [int(i) for i in prompt]
    vocab_size = model.config.vocab_size
    if not ids:
        other = "" if source else ", and this tokenizer has no beginning-of-text token"
        raise RequestError(f"the prompt is empty{other}: give some text")
    if not all(0 <= i < vocab_size for i in ids):
        raise RequestError(
            f"the prompt holds the token id {max(ids)}, but the model's vocabulary has {vocab_size}: the tokenizer is "
            "not this model's"
        )
    longest = positions(model.config) - (not source)  # a decoder's own text needs one more
    if len(ids) > longest and bounded:
        rest = "" if source else ", with no room for another"
        ways = "keep only its end" if source else "let its oldest tokens go as it is read (window=…, --window)"
        raise RequestError(
            f"the prompt has {len(ids):,} tokens and the model's context {model.config.context:,}{rest}: "
            f"shorten it to {longest:,} tokens, use a model with a longer context, or {ways}"
        )
    return ids


def positions(config: ModelConfig) -> int:
    """How many positions a text may have: the context, but of ALiBi and relative positions there is no last one (Press,
    Smith & Lewis 2022, section 1)."""
    return BOUNDLESS if isinstance(config.positions, (ALiBi, Relative)) else config.context


def begins(tokenizer) -> bool:
    """Whether the tokenizer's files put the beginning-of-text token before a text."""
    said = tokenizer.config.get("add_bos_token")
    if isinstance(said, bool):
        return said
    first, _ = around.read(tokenizer.tree).single[0]
    return tokenizer.bos_id is not None and not isinstance(first, str) and first[0] == tokenizer.bos_id


def start_ids(model: EncoderDecoder, tokenizer) -> list[int]:
    """What the decoder of an encoder-decoder begins its text with."""
    start = _first(model.config.special("start"), model.config.special("pad"), tokenizer.pad_id)
    if start is None:
        raise RequestError(
            "the model does not say what its decoder begins with: config.json needs decoder_start_token_id"
        )
    return [start]


def end_ids(model: Transformer, tokenizer, stop_tokens: Iterable[int | str] = ()) -> frozenset[int]:
    """The tokens that end a text: the tokenizer's, the model's, and `stop_tokens` (ids, or each the text of one)."""
    known = [tokenizer.eos_id, *model.config.specials("eos")]
    return frozenset([i for i in known if i is not None] + [words.token_id(tokenizer, t) for t in stop_tokens])


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)
