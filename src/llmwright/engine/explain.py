"""The whole path of one question, as data: text, tokens, ids, embeddings, layers, the distribution, the choice, text.

Beside each layer stand what the model would say if it ended there ("logit lens": nostalgebraist 2020; the layer's
states through the last norm and the head) and where the last position's attention looks, the mean over the heads. What
is seen is read from the real forward pass through hooks; the choice is `generate`'s own, to the random number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import RequestError
from ..kernels import reference
from ..model.encoder import Encoder
from ..model.encoder_decoder import EncoderDecoder
from ..model.transformer import Transformer
from . import words
from .generate import generators
from .penalties import penalize
from .prompt import end_ids, positions, prompt_ids, start_ids
from .sampler import Sampling, likeliest, sample, stages
from .stepper import NO_WRITER

TOP = 10  # of a distribution
LOOKS = 4  # of an attention


@dataclass(frozen=True)
class Layer:
    """`length`: the norm of the residual stream at the last position (in an encoder the mean over all). `says`: the
    likeliest (id, probability) if the model ended here. `looks`, `source_looks`: (place, weight), the strongest first,
    on the text and on the source; in an encoder what each place gets on the mean."""

    length: float
    says: list[tuple[int, float]] = field(default_factory=list)
    looks: list[tuple[int, float]] = field(default_factory=list)
    source_looks: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Cut:
    """After the stage `name` there are `kept` tokens to choose from; `removed`: the probability of those that went."""

    name: str
    kept: int
    removed: float


@dataclass(frozen=True)
class Choice:
    """`top`: the likeliest (id, probability under the model, probability that it is drawn). `changed`: how many logits
    penalties and biases changed. `cuts`: what each stage left. `chosen` is one such triple."""

    layers: list[Layer]
    top: list[tuple[int, float, float]]
    changed: int
    cuts: list[Cut]
    chosen: tuple[int, float, float]


@dataclass(frozen=True)
class Explanation:
    """`ids` are read by the stack that the prompt goes through; `start` is what an encoder-decoder's text begins with.
    `embedded` (T, D): what the first layer receives, `encoder` its layers; `text`: what the choices say."""

    prompt: str
    ids: list[int]
    start: list[int]
    embedded: Tensor
    encoder: list[Layer]
    choices: list[Choice]
    text: str


@torch.no_grad()
def explain(
    model: Transformer, tokenizer, prompt: str | list[int], *, sampling: Sampling = Sampling(), steps: int = 1,
    stop_tokens: Sequence[int | str] = (),
) -> Explanation:
    """Follow the choice of the first `steps` tokens; fewer where the text ends. Raises RequestError as `generate`."""
    if isinstance(model, Encoder):
        raise RequestError(NO_WRITER)
    sampling, ends = words.resolve(sampling, tokenizer), end_ids(model, tokenizer, stop_tokens)
    ids = prompt_ids(model, tokenizer, prompt)
    (generator,) = generators([ids], sampling)
    training = model.training
    model.eval()
    try:
        source = isinstance(model, EncoderDecoder)
        start = start_ids(model, tokenizer) if source else []
        read, written, choices = start or ids, [], []
        with _Watch(model.stacks[0]) as encoder:
            memory = model.encode(torch.tensor([ids], device=model.device)) if source else None
        with _Watch(model.stacks[-1]) as decoder:
            while len(choices) < min(steps, positions(model.config) - len(read)) and not ends.intersection(written):
                decoder.clear()
                seen = torch.tensor([[*read, *written]], device=model.device)
                hidden = model.hidden(seen, memory) if source else model.hidden(seen)
                logits = model.logits(hidden[:, -1])
                logits[:, tokenizer.vocab_size :] = -torch.inf
                layers = [_decoder_layer(model, decoder, i) for i in range(model.config.n_layers)]
                choices.append(_choice(logits, layers, sampling, read, written, ends, generator))
                written.append(choices[-1].chosen[0])
                if len(choices) == 1 and not source:
                    embedded = decoder.entered
        if source:
            embedded = encoder.entered
    finally:
        model.train(training)
    layers = [_encoder_layer(encoder, i) for i in range(model.config.n_encoder_layers)] if source else []
    text = tokenizer.decode([i for i in written if i not in ends])
    prompt = prompt if isinstance(prompt, str) else tokenizer.decode(prompt, skip_specials=False)
    return Explanation(prompt, ids, start, embedded[0].float(), layers, choices, text)


class _Watch:
    """Keeps, while it is open, what goes through a stack: `entered` (B, T, D), each block's `states` (B, T, D), and
    what each `Attention` and `CrossAttention` was given."""

    def __init__(self, stack):
        self.stack, self.handles = stack, []
        self.clear()

    def clear(self) -> None:
        self.entered, self.states, self.inside, self.cross = None, [], [], []

    def __enter__(self):
        for block in self.stack.blocks:
            self.handles.append(block.register_forward_hook(self._block))
            self.handles.append(block.attention.register_forward_hook(lambda *seen: self.inside.append(seen[:2])))
            if block.cross_attention is not None:
                hook = lambda *seen: self.cross.append(seen[:2])  # noqa: E731
                self.handles.append(block.cross_attention.register_forward_hook(hook))
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def _block(self, block, given, states) -> None:
        self.entered = given[0] if self.entered is None else self.entered
        self.states.append(states)

    def weights(self, layer: int, last: bool) -> Tensor:
        """Of one layer, (T, S), the mean over the heads; T is 1, the last position, when `last`."""
        module, (x, geometry, *_) = self.inside[layer]
        q, k, _ = module.project(x, geometry)
        mask = geometry.mask
        if last:
            q = q[:, -1:]
            mask = mask if mask is None else mask[..., -1:, :]
        return reference.attention_weights(
            q, k, mask=mask, causal=geometry.causal, window=geometry.window, scale=module.spec.scale,
            softcap=module.spec.softcap,
        )[0].mean(0)

    def cross_weights(self, layer: int) -> Tensor:
        """(1, S): the last position's on the source."""
        module, (x, memory) = self.cross[layer]
        q = module.query(x[:, -1:]).unflatten(-1, (-1, module.spec.head_dim))  # (1, 1, H, C)
        k, _ = module.keys_and_values(memory)
        return reference.attention_weights(q, k, mask=memory.mask, scale=module.spec.scale)[0].mean(0)


def _decoder_layer(model: Transformer, watch: _Watch, i: int) -> Layer:
    state = watch.states[i][:, -1]
    lens = model.logits(watch.stack.norm(state)).softmax(-1)
    return Layer(
        float(state.float().norm()), likeliest(lens, 1)[0], _strongest(watch.weights(i, last=True)[0]),
        _strongest(watch.cross_weights(i)[0]) if watch.cross else [],
    )


def _encoder_layer(watch: _Watch, i: int) -> Layer:
    return Layer(
        float(watch.states[i].float().norm(dim=-1).mean()), looks=_strongest(watch.weights(i, last=False).mean(0))
    )


def _strongest(weights: Tensor) -> list[tuple[int, float]]:
    return likeliest(weights[None], LOOKS)[0]


def _choice(logits, layers, sampling, read, written, ends, generator) -> Choice:
    """The next token of `logits` (1, V), and how it came about."""
    own = logits.softmax(-1)[0]
    changed = penalize(logits, [sampling], [read], [written], ends)
    cuts = []
    if sampling.greedy:
        drawn = torch.zeros_like(own)
        drawn[changed[0].argmax()] = 1
    else:
        before = None
        for name, p in stages(changed, [sampling]):
            removed = 0.0 if before is None else float(before[p[0] == 0].sum())
            before, drawn = p[0], p[0]
            cuts.append(Cut(name, int((drawn > 0).sum()), removed))
    token = int(sample(changed, sampling, [generator]))
    top = [(i, p, float(drawn[i])) for i, p in likeliest(own[None], TOP)[0]]
    return Choice(layers, top, int((changed != logits).sum()), cuts, (token, float(own[token]), float(drawn[token])))
