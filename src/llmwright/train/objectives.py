"""What a model is trained to do: `(model, batch) → (loss summed over valid tokens, their number, metrics)`.

A sum, so that the loop can average over the valid tokens of all micro-batches and ranks, never over micro-batches.
"""

from torch import Tensor

from ..model.decoder import Decoder


def causal(model: Decoder, batch) -> tuple[Tensor, int, dict]:
    """Predict each next token (Radford et al. 2018, equation 1). `batch` is a `data.rows.Batch`; the loss is in nats."""
    hidden = model.hidden(batch.input_ids, positions=batch.positions, segments=batch.segments)  # (B, T, D)
    loss = model.cross_entropy(hidden, batch.targets)
    router = model.auxiliary_loss()
    if router is not None:
        loss = loss + router * batch.n_targets
    return loss, batch.n_targets, {}


OBJECTIVES = {"causal": causal}
