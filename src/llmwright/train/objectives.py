"""What a model is trained to do: `(model, batch) → (loss summed over valid targets, their number, metrics)`.

A sum, so that the loop can average over the valid targets of all micro-batches and ranks, never over micro-batches. What
is hidden from the model, and so what is learned, is decided where the batch is made (`data/`): here each objective only
says which states predict which targets, and for which kind of model.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..model.transformer import Transformer


@dataclass(frozen=True)
class Objective:
    """`states(model, batch)` gives the states (…, D) that predict, and their targets (…), -100 where there is none.

    `kind` of model; `label_smoothing` as in `kernels.linear_cross_entropy`. Called, it gives the loss in nats.
    """

    kind: str
    states: Callable[[Transformer, object], tuple[Tensor, Tensor]]
    label_smoothing: float = 0.0

    def __call__(self, model: Transformer, batch) -> tuple[Tensor, int, dict]:
        hidden, targets = self.states(model, batch)
        loss = model.cross_entropy(hidden, targets, self.label_smoothing)
        router = model.auxiliary_loss()
        if router is not None:
            loss = loss + router * batch.n_targets
        return loss, batch.n_targets, {}


def _next_tokens(model, batch):
    return model.hidden(batch.input_ids, positions=batch.positions, segments=batch.segments), batch.targets


def _masked_tokens(model, batch):
    hidden = model.hidden(batch.input_ids, positions=batch.positions, segments=batch.segments)  # (B, T, D)
    wanted = batch.targets >= 0
    return hidden[wanted], batch.targets[wanted]  # the head, a large part of a small model's work, sees these alone


def _target_text(model, batch):
    memory = model.encode(batch.source_ids, batch.source_mask)
    return model.hidden(batch.input_ids, memory), batch.targets


# Predict each next token (Radford et al. 2018, equation 1). Batches: `data.batch.Batch`.
causal = Objective("decoder", _next_tokens)
# Recover the tokens that were masked (Devlin et al. 2019, section 3.1). Batches: `data.batch.Batch` from `data.masking`.
masked = Objective("encoder", _masked_tokens)
# Write the target of a source (Sutskever et al. 2014). Batches: `data.batch.PairBatch` from `data.pairs`.
seq2seq = Objective("encoder-decoder", _target_text)
# Write the spans that were taken out of a text (Raffel et al. 2020, section 3.1.4): a pair made of one text by
# `data.spans`, and from there on the same.
span = seq2seq

OBJECTIVES = {"causal": causal, "masked": masked, "span": span, "seq2seq": seq2seq}
