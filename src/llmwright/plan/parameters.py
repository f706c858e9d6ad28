"""How many parameters a model has, part by part.

Counted from the shapes of the matrices, so it is exact: GPT-2 small gives 124,439,808, as its checkpoint does.
"""

from dataclasses import dataclass

from ..model.config import ModelConfig
from .shape import Shape, shape_of


@dataclass(frozen=True)
class Parameters:
    """`parts`: embedding, positions, attention, feed_forward, norms, head; they add up to `total`.

    `head` is 0 when it is tied to the embedding (the matrix is counted once); what a head has beside the table (BERT's
    dense layer and biases, the pooler) is in it. `active`: those a token passes through; fewer than `total` only in a
    mixture of experts. `non_embedding`: attention, feed-forward and norms: without embedding, positions and head.
    `matmul`: weights that multiply each token (the head also where it is tied; no embedding, norm or bias): 2 FLOPs
    each for a token's forward pass; `head_matmul` is the head's part of them. In an encoder-decoder these are a target
    token's, and `source_matmul` those of a source token: the encoder's, and the keys and values that the decoder takes
    of it. `block_matrices`: the blocks' matrices, which is what Muon and LoRA work on.
    """

    parts: dict[str, int]
    total: int
    active: int
    non_embedding: int
    matmul: int
    head_matmul: int
    source_matmul: int
    block_matrices: int


def parameters(config: ModelConfig | Shape) -> Parameters:
    """Count the parameters of `config`. Raises RequestError for impossible shapes (from Shape)."""
    s = shape_of(config)
    d, q, kv, f = s.d_model, s.q_width, s.kv_width, s.d_ff
    layers = s.n_layers + s.n_encoder_layers
    attentions = layers + s.cross_layers

    attention_matrices = d * (q + 2 * kv) + q * d
    attention = attention_matrices + (q + 2 * kv) * s.qkv_bias + d * s.out_bias
    if s.positions == "transformer-xl":
        attention_matrices += d * q
        attention += d * q + 2 * q

    n_in = 2 if s.gated else 1
    expert_matrices = (n_in + 1) * d * f
    expert = expert_matrices + (n_in * f + d) * s.ff_bias
    router = d * s.n_experts if s.n_experts > 1 else 0

    norm = d * (1 + s.norm_bias)
    ends = (s.residual != "post") + s.embedding_norm  # of a stack
    norms = (layers * s.block_norms + s.cross_layers + s.stacks * ends) * norm + layers * 2 * s.head_dim * s.qk_norm

    tables = {"learned": (s.position_rows or s.context) * d, "buckets": s.n_buckets * s.n_heads}
    dense = d * d + d
    parts = {
        "embedding": (s.vocab_size + s.token_types) * d,
        "positions": s.stacks * tables.get(s.positions, 0),
        "attention": attentions * attention,
        "feed_forward": layers * (s.n_experts * expert + router),
        "norms": norms,
        "head": (0 if s.tie_embeddings else s.vocab_size * d) + s.vocab_size * s.head_bias
        + (dense + norm) * s.head_transform + dense * s.pooler,
    }
    total = sum(parts.values())
    idle = layers * (s.n_experts - s.active_experts)
    layer = attention_matrices + s.active_experts * expert_matrices + router  # what multiplies a token in it
    head = s.vocab_size * d + d * d * s.head_transform
    return Parameters(
        parts=parts,
        total=total,
        active=total - idle * expert,
        non_embedding=parts["attention"] + parts["feed_forward"] + parts["norms"],
        matmul=s.n_layers * layer + s.cross_layers * 2 * d * q + head,
        head_matmul=head,
        source_matmul=s.n_encoder_layers * layer + s.cross_layers * 2 * d * kv,
        block_matrices=attentions * attention_matrices + layers * (s.n_experts * expert_matrices + router),
    )
