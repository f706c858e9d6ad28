"""Fill the mask: what an encoder with a head for it would put in a hidden token's place (Devlin et al. 2019,
section 3.1)."""

from dataclasses import dataclass

import torch

from ..errors import RequestError
from ..model.encoder import Encoder
from ..tokens import around
from ..tokens.anatomy import USUAL_NAMES


@dataclass(frozen=True)
class Filling:
    """A token for a mask, without the spaces around it (unless it is nothing else), and its probability. `text`: the
    whole text with it, and with the best token in every other mask."""

    id: int
    token: str
    probability: float
    text: str

    @property
    def shown(self) -> str:
        """The token as people read it: what would not be seen in quotes."""
        return self.token if self.token.strip() and self.token.isprintable() else repr(self.token)


@torch.inference_mode()
def fill_mask(model: Encoder, tokenizer, text: str, *, top: int = 5) -> list[list[Filling]]:
    """For each mask of `text`, in order, its `top` likeliest tokens, the best first.

    The mask is written as the tokenizer writes it; [MASK] and <mask> are understood by all. Each mask is filled for
    itself: the others are hidden from it.
    """
    _check(model, tokenizer)
    if top < 1:
        raise RequestError(f"top {top}: it must be at least 1")
    mask = tokenizer.token(tokenizer.mask_id)
    for usual in USUAL_NAMES["mask"]:
        text = text.replace(usual, mask)
    if mask not in text:
        raise RequestError(f"there is no mask to fill in: write {mask} where the text has a gap")
    frame = around.read(tokenizer.tree)
    plain = tokenizer.encode(text, specials=True)
    ids, types = (torch.from_numpy(part) for part in frame.put(plain))
    if len(ids) > model.config.context:
        raise RequestError(
            f"the text has {len(ids)} tokens with its marks, and the model reads at most {model.config.context}: "
            "shorten it"
        )
    places = (ids == tokenizer.mask_id).nonzero()[:, 0]
    types = types.clamp(max=model.config.token_types - 1)[None].to(model.device) if model.config.token_types else None
    hidden = model.hidden(ids[None].to(model.device), token_types=types)[0, places.to(model.device)]  # (M, D)
    probabilities = model.logits(hidden).softmax(-1).cpu()  # (M, V)
    probabilities[:, tokenizer.vocab_size :] = 0  # rows of the table that have no token
    best, tokens = probabilities.topk(min(top, tokenizer.vocab_size))
    filled = ids.clone()
    filled[places] = tokens[:, 0]
    return [
        [
            Filling(int(token), _token(tokenizer.decode([token])), float(p), _text(tokenizer, filled, place, token))
            for p, token in zip(row, chosen)
        ]
        for place, row, chosen in zip(places, best, tokens)
    ]


def _token(text: str) -> str:
    return text.strip() or text


def _text(tokenizer, ids, place, token) -> str:
    ids = ids.clone()
    ids[place] = token
    return tokenizer.decode(ids.tolist()).strip()


def show(text: str, fillings: list[list[Filling]]) -> str:
    """The fillings as lines for a person."""
    lines = []
    for number, found in enumerate(fillings, 1):
        if len(fillings) > 1:
            lines.append(f"mask {number}")
        width = max(len(f.shown) for f in found)
        lines += [f"{100 * f.probability:5.1f} %  {f.shown:<{width}}  {' '.join(f.text.split())}" for f in found]
    return "\n".join(lines)


def _check(model, tokenizer) -> None:
    if not isinstance(model, Encoder) or model.head is None:
        what = "an encoder without a head for it" if isinstance(model, Encoder) else f"a {model.config.kind}"
        raise RequestError(
            f"this model is {what} ({model.config.family}); masks are filled by an encoder with one, such as "
            "bert-base-uncased"
        )
    if tokenizer.mask_id is None:
        raise RequestError("the tokenizer has no mask token")
