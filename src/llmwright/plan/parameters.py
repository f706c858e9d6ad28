"""How many parameters a model has, part by part.

Counted from the shapes of the matrices, so it is exact: GPT-2 small gives 124,439,808, as its checkpoint does.
"""

from dataclasses import dataclass

from ..model.config import ModelConfig
from .shape import Shape, shape_of


@dataclass(frozen=True)
class Parameters:
    """`parts`: embedding, positions, attention, feed_forward, norms, head; they add up to `total`.

    `head` is 0 when it is tied to the embedding (the matrix is counted once).
    `active`: those a token passes through; fewer than `total` only in a mixture of experts.
    `non_embedding`: attention, feed-forward and norms: without the embedding, the position table and the head.
    `matmul`: weights that multiply each token (the head also where it is tied; no embedding, norm or bias): 2 FLOPs
    each for a token's forward pass.
    `block_matrices`: the blocks' matrices, which is what Muon and LoRA work on.
    """

    parts: dict[str, int]
    total: int
    active: int
    non_embedding: int
    matmul: int
    block_matrices: int


def parameters(config: ModelConfig | Shape) -> Parameters:
    """Count the parameters of `config`. Raises RequestError for impossible shapes (from Shape)."""
    s = shape_of(config)
    d, q, kv, f = s.d_model, s.q_width, s.kv_width, s.d_ff

    attention_matrices = d * (q + 2 * kv) + q * d
    attention = attention_matrices + (q + 2 * kv) * s.qkv_bias + d * s.out_bias
    if s.positions == "relative":
        attention_matrices += d * q
        attention += d * q + 2 * q

    n_in = 2 if s.gated else 1
    expert_matrices = (n_in + 1) * d * f
    expert = expert_matrices + (n_in * f + d) * s.ff_bias
    router = d * s.n_experts if s.n_experts > 1 else 0

    norm = d * (1 + s.norm_bias)
    norms = s.n_layers * (s.block_norms * norm + 2 * s.head_dim * s.qk_norm) + norm  # and the one before the head

    parts = {
        "embedding": s.vocab_size * d,
        "positions": s.context * d if s.positions == "learned" else 0,
        "attention": s.n_layers * attention,
        "feed_forward": s.n_layers * (s.n_experts * expert + router),
        "norms": norms,
        "head": 0 if s.tie_embeddings else s.vocab_size * d,
    }
    total = sum(parts.values())
    idle = s.n_layers * (s.n_experts - s.active_experts)
    return Parameters(
        parts=parts,
        total=total,
        active=total - idle * expert,
        non_embedding=parts["attention"] + parts["feed_forward"] + parts["norms"],
        matmul=s.n_layers * (attention_matrices + s.active_experts * expert_matrices + router) + s.vocab_size * d,
        block_matrices=s.n_layers * (attention_matrices + s.n_experts * expert_matrices + router),
    )
