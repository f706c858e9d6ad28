"""Where the memory goes, in bytes: in training, in inference, and in the matrix that is never built.

Training keeps float32 master weights, gradients and optimizer states whatever the precision; with bfloat16 the blocks'
matrices have a working copy of 2 bytes a weight, and activations are bfloat16. A block's activations are the tensors
that its backward pass needs, counted from this project's block as Korthikanti et al. 2022 (section 4.1) count theirs;
the tests hold the count against what autograd really saves.
"""

from ..errors import RequestError
from ..model.config import ModelConfig
from .parameters import parameters
from .shape import Shape, shape_of

BYTES = {"float32": 4, "bfloat16": 2}
OPTIMIZERS = ("adamw", "muon", "adamw8bit")
LOGIT_BYTES = 16 * 2**20  # of logits that the loss holds at once (kernels/cross_entropy.py, CHUNK_BYTES)


def optimizer_bytes(config: ModelConfig | Shape, optimizer: str) -> int:
    """AdamW: two float32 states a weight. Muon: one for the blocks' matrices, AdamW for the rest. adamw8bit: two of one
    byte (Dettmers et al. 2022)."""
    p = parameters(config)
    if optimizer == "adamw":
        return 8 * p.total
    if optimizer == "muon":
        return 4 * p.block_matrices + 8 * (p.total - p.block_matrices)
    if optimizer == "adamw8bit":
        return 2 * p.total
    raise RequestError(f"optimizer {optimizer!r} is unknown; there are {', '.join(OPTIMIZERS)}")


def block_activation_bytes(config: ModelConfig | Shape, precision: str, context: int) -> int:
    """Bytes a token, in a row of `context` tokens, that one block keeps for its backward pass.

    Two norms keep their input, and the matrices after them the normed input: 4D. Attention keeps query, key, value and
    its result, and with QK-norm query and key from before it. A gated feed-forward keeps gate, up and their product,
    a plain one the sums before and after the activation. In float32 besides: the statistics of the norms, and the
    log-sum-exp of each head's scores, from which the kernel makes the scores again (Dao et al. 2022). Dropout keeps a
    mask for each result; on the attention weights it needs them all: softmax, mask and product of H·T numbers.
    """
    s, size = shape_of(config), BYTES[precision]
    q, kv, ff = s.q_width, s.kv_width, s.active_experts * s.d_ff
    kept = 2 * s.block_norms * s.d_model + 2 * (q + kv) + (q + kv) * s.qk_norm + (3 if s.gated else 2) * ff
    kept += 2 * s.d_model * s.dropout
    statistics = (2 if s.norm == "layer" else 1) * s.block_norms + (s.n_heads + s.n_kv_heads) * s.qk_norm
    if s.attention_dropout:
        return size * kept + 4 * statistics + s.n_heads * context * (8 + size)
    return size * kept + 4 * (statistics + s.n_heads)


def activation_bytes(config: ModelConfig | Shape, batch: int, context: int, precision: str = "float32",
                     activation_checkpointing: bool = False, packed: bool = False) -> int:
    """Bytes kept between the forward and the backward pass of `batch` rows of `context` tokens.

    With `activation_checkpointing` (Chen et al. 2016) only each block's input is kept, and one block at a time is
    computed again. The last norm keeps its input and its result, which is what the loss starts from. `packed` rows have
    a mask that tells their documents apart: a byte for each pair of positions, the same for all layers.
    """
    s, tokens = shape_of(config), batch * context
    block = block_activation_bytes(s, precision, context)
    row = BYTES[precision] * s.d_model
    kept = s.n_layers * row + block if activation_checkpointing else s.n_layers * block
    return tokens * (kept + 2 * row) + packed * tokens * context


def working_bytes(config: ModelConfig | Shape, batch: int, context: int, precision: str = "float32") -> int:
    """Bytes that the loss adds at the end of the forward pass: a chunk of logits, the head in the precision with its
    product in it, and the gradients of the head (float32) and of the last states."""
    s, tokens, size = shape_of(config), batch * context, BYTES[precision]
    head = s.vocab_size * s.d_model
    logits = min(max(LOGIT_BYTES, 64 * s.vocab_size * size), tokens * s.vocab_size * size)
    return logits + (2 * size * head if precision == "bfloat16" else 0) + 4 * head + tokens * size * s.d_model


def training_memory(config: ModelConfig | Shape, batch: int, context: int, precision: str = "float32",
                    optimizer: str = "adamw", activation_checkpointing: bool = False, base: float = 0,
                    shards: int = 1, accumulate: int = 1, packed: bool = False, slack: float = 0.0) -> dict[str, float]:
    """Bytes by part while training on micro-batches of `batch` rows of `context` tokens; their sum is the peak.

    The backward pass frees activations as it makes gradients, so the two are never whole at once: the part
    "never at once" is what the peak (at the end of the forward or of the backward pass, whichever is higher) is below
    their sum, and negative. With `accumulate` > 1, the gradients stay while the next activations come.

    `base`: what the process takes before it has a model. `shards`: devices over which weights, gradients and optimizer
    states are divided (FSDP); the batch is each device's own. `slack`: what the allocator leaves unused, as a share of
    the activations. Raises RequestError for impossible numbers.
    """
    s = shape_of(config)
    _check(batch=batch, context=context, shards=shards, accumulate=accumulate)
    if precision not in BYTES:
        raise RequestError(f"precision {precision!r} is unknown; there are {', '.join(BYTES)}")
    p = parameters(s)
    gradients = 4 * p.total / shards
    copy = 2 * p.block_matrices / shards if precision == "bfloat16" else 0
    activations = activation_bytes(s, batch, context, precision, activation_checkpointing, packed)
    working = working_bytes(s, batch, context, precision) + slack * activations
    forward_end = activations + working + (gradients if accumulate > 1 else 0)
    backward_end = gradients + (copy if accumulate > 1 else 0)  # the copy's own gradients, before they are added up
    parts = {
        "weights": 4 * p.total / shards,
        "bfloat16 copy": copy,
        "gradients": gradients,
        "optimizer": optimizer_bytes(s, optimizer) / shards,
        "activations": activations,
        "working space": working,
        "process": base,
        "never at once": max(forward_end, backward_end) - gradients - activations - working,
    }
    return {name: value for name, value in parts.items() if value}


def lora_memory(config: ModelConfig | Shape, batch: int, context: int, precision: str = "bfloat16", rank: int = 16,
                activation_checkpointing: bool = False, base: float = 0, bits: float = 16) -> dict[str, float]:
    """Bytes by part while training rank-`rank` adapters on all matrices of the blocks (Hu et al. 2021): the frozen
    weights at `bits` a weight, and weights, gradients and AdamW states of the adapters alone."""
    s = shape_of(config)
    d, n_in = s.d_model, 2 if s.gated else 1
    widths = 2 * (d + s.q_width) + 2 * (d + s.kv_width) + s.n_experts * (n_in + 1) * (d + s.d_ff)
    adapters = s.n_layers * rank * widths
    _check(batch=batch, context=context, rank=rank)
    return {
        "frozen weights": parameters(s).total * bits / 8,
        "adapters": 16 * adapters,
        "activations": activation_bytes(s, batch, context, precision, activation_checkpointing),
        "working space": working_bytes(s, batch, context, precision),
        "process": base,
    }


def kv_cache_bytes(config: ModelConfig | Shape, context: int, batch: int = 1, size: int = 2) -> int:
    """Keys and values of `batch` sequences of `context` tokens: 2·L·K·C numbers of `size` bytes a token."""
    s = shape_of(config)
    _check(batch=batch, context=context)
    return 2 * s.n_layers * s.kv_width * size * context * batch


def inference_memory(config: ModelConfig | Shape, bits: float, context: int, batch: int = 1) -> dict[str, float]:
    """Bytes by part while generating: weights at `bits` a weight (scales of quantized weights not counted: for NF4 they
    add 0.13 bits, Dettmers et al. 2023), and the cache, in float32 for 32-bit weights and else at 2 bytes."""
    if not 0 < bits <= 64:
        raise RequestError(f"{bits} bits a weight is impossible; usual are 32, 16, 8 and 4")
    return {
        "weights": parameters(config).total * bits / 8,
        "kv cache": kv_cache_bytes(config, context, batch, 4 if bits >= 32 else 2),
    }


def attention_matrix_bytes(n: int, heads: int = 1, layers: int = 1, size: int = 4) -> int:
    """Bytes of the full matrix of attention scores of `n` tokens: n² numbers for each head of each layer.

    It is never built: the fused kernel goes through it in tiles and keeps a running maximum and sum of each row (Dao
    et al. 2022), so its memory grows with n, not with n².
    """
    _check(n=n, heads=heads, layers=layers)
    return n * n * heads * layers * size


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if not 1 <= value <= 10**9:
            raise RequestError(f"{name} is {value}; it must be from 1 to {10**9:,}")
