"""How well a model gives the targets of its objective: what was masked, the spans that were taken out, a translation.

Loss is nats a target, accuracy the share of the targets that the model finds likeliest (the words before them given as
they are, "teacher forcing"). Neither is bits per byte: what is predicted is not the text but what was hidden of it.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ..errors import RequestError, WorkError
from ..model.transformer import Transformer
from ..progress import Progress

ROWS = 1024  # of logits at a time


@torch.no_grad()
def evaluate_targets(model: Transformer, objective, batches: Iterable, progress: Progress = Progress()) -> dict:
    """Score every valid target of `batches` by `objective` (`train.objectives.Objective`), without label smoothing.

    Returns loss, perplexity_per_token, accuracy and tokens (the targets). Raises WorkError when the loss is not finite.
    """
    training = model.training
    model.eval()
    nats, right, n = 0.0, 0, 0
    try:
        with progress.task("scoring", None, "tokens") as task:
            for batch in batches:
                hidden, targets = objective.states(model, batch.to(model.device))
                wanted = targets >= 0
                hidden, targets = hidden[wanted], targets[wanted]
                for h, t in zip(hidden.split(ROWS), targets.split(ROWS)):
                    logits = model.logits(h)
                    nats += F.cross_entropy(logits, t, reduction="sum").item()
                    right += int((logits.argmax(-1) == t).sum())
                n += len(targets)
                task.advance(len(targets), loss=f"{nats / max(n, 1):.3f}")
    finally:
        model.train(training)
    if not n:
        raise RequestError("there is nothing to score: no target")
    if not math.isfinite(nats):
        raise WorkError("the loss is not finite: the model's weights are damaged or its training diverged")
    loss = nats / n
    return {"loss": loss, "perplexity_per_token": math.exp(loss) if loss < 700 else math.inf, "accuracy": right / n, "tokens": n}
