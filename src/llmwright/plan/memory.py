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
SMALL_SCORES = 1 << 25  # up to which attention with numbers to add builds the matrix (kernels/attention.py, plain)
# vectors of D that a layout's norms keep: their inputs, and their results where a matrix reads them
_NORM_ROWS = {"pre": 4, "post": 4, "sandwich": 6, "parallel": 2, "parallel_two_norms": 3}
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


def block_activation_bytes(config: ModelConfig | Shape, precision: str, context: int, batch: int = 1,
                           window: int | None = None) -> float:
    """Bytes a token, in `batch` rows of `context` tokens, that one block keeps for its backward pass.

    Two norms keep their input, and the matrices after them the normed input: 4D (`_NORM_ROWS` has the other layouts).
    Attention keeps query, key, value and its result, and with QK-norm query and key from before it. A gated
    feed-forward keeps gate, up and their product, a plain one the sums before and after the activation. In float32
    besides: the statistics of the norms, and the log-sum-exp of each head's scores, from which the kernel makes the
    scores again (Dao et al. 2022). Where the kernel does not serve (`_keeps_scores`) the scores stay. A mixture keeps its
    router's shares, and for each active expert the token, its answer, and its answer times its share.
    """
    s, size = shape_of(config), BYTES[precision]
    kept = _NORM_ROWS[s.residual] * s.d_model + (s.q_width + s.kv_width) * s.qk_norm
    statistics = (2 if s.norm == "layer" else 1) * s.block_norms + (s.n_heads + s.n_kv_heads) * s.qk_norm
    kept += s.active_experts * _feed_forward_rows(s) * s.d_ff
    routed = 0
    if s.n_experts > 1:
        kept += 3 * s.active_experts * s.d_model
        routed = 2 * 4 * s.n_experts + s.active_experts * (2 * 8 + 3 * 4)  # shares; who, where, and by how much
    attention = _attention_bytes(s, precision, batch, context, context, window, s.positions in ("alibi", "buckets"))
    return size * kept + 4 * statistics + routed + attention


def _attention_bytes(s: Shape, precision: str, batch: int, queries: int, keys: int, window: int | None = None,
                     added: bool = False) -> float:
    """Bytes a query of attention itself: query, key, value, result, and what is left of the scores. `added`: whether a
    number is added to each score. A windowed layer goes through `window` queries at a time, which are near twice as many
    keys (the first of them near as many), and keeps a byte for each such pair, once for all rows."""
    size, near, copies, masks = BYTES[precision], keys, 1.0, 0.0
    if window is not None and window < keys:
        pieces = -(-keys // window)
        near = window * (2 * pieces - 1) / pieces
        copies, masks = near / window, near / batch
    if _keeps_scores(s, batch * s.n_heads * queries * keys, added):
        numbers = 4 + size + 4 * s.softcap + 4 * s.attention_dropout
        return size * 2 * (1 + copies) * s.q_width + s.n_heads * near * numbers + masks
    return size * (2 * s.q_width + 2 * s.kv_width * keys / queries) + 4 * s.n_heads + masks


def _keeps_scores(s: Shape, scores: int, added: bool) -> bool:
    """Whether attention builds its matrix of so many `scores` (`kernels/attention.py`): to drop some, to cap them, or,
    where it is small enough to be faster, to add a number to each."""
    return s.attention_dropout or s.softcap or (added and scores <= SMALL_SCORES)


def _feed_forward_rows(s: Shape) -> int:
    """Vectors of F that a feed-forward keeps. The ReLU needs its result alone, which is the next matrix's input too."""
    if s.gated:
        return 4 if s.activation.startswith("gelu") else 3
    return 1 + (s.activation != "relu" or s.ff_dropout)


def activation_bytes(config: ModelConfig | Shape, batch: int, context: int, precision: str = "float32",
                     activation_checkpointing: bool = False, packed: bool = False, target: int | None = None) -> float:
    """Bytes kept between the forward and the backward pass of `batch` rows of `context` tokens; of an encoder-decoder, of
    sources of `context` and targets of `target` tokens (as many, by default).

    With `activation_checkpointing` (Chen et al. 2016) only each block's input is kept, and one block at a time is
    computed again. The last norm keeps its input and its result, which is what the loss starts from; one on the
    embeddings keeps its input. `packed` rows have a mask that tells their documents apart: a byte for each pair of
    positions, the same for all layers.
    """
    s, size = shape_of(config), BYTES[precision]
    row = size * s.d_model
    ends = ((1 if s.residual == "post" else 2) + s.embedding_norm) * row
    own = (target or context) if s.kind == "encoder-decoder" else context
    stacks = [(own, [block_activation_bytes(s, precision, own, batch, w) for w in s.windows or (None,) * s.n_layers])]
    if s.kind == "encoder-decoder":
        norm = size * 2 * s.d_model + 4 * (2 if s.norm == "layer" else 1)
        cross = norm + _attention_bytes(s, precision, batch, own, context)
        stacks[0] = own, [block + cross for block in stacks[0][1]]
        stacks.append((context, [block_activation_bytes(s, precision, context, batch)] * s.n_encoder_layers))
    total = 0
    for tokens, blocks in stacks:
        kept = len(blocks) * row + max(blocks) if activation_checkpointing else sum(blocks)
        total += batch * tokens * (kept + ends)
    return total + packed * batch * context * context


def working_bytes(config: ModelConfig | Shape, batch: int, context: int, precision: str = "float32") -> int:
    """Bytes that the loss adds at the end of the forward pass over `batch` rows of `context` tokens: a chunk of logits, the
    head in the precision with its product in it, and the gradients of the head (float32) and of the last states."""
    s, tokens, size = shape_of(config), batch * context, BYTES[precision]
    head = s.vocab_size * s.d_model
    logits = min(max(LOGIT_BYTES, 64 * s.vocab_size * size), tokens * s.vocab_size * size)
    return logits + (2 * size * head if precision == "bfloat16" else 0) + 4 * head + tokens * size * s.d_model


def training_memory(config: ModelConfig | Shape, batch: int, context: int, precision: str = "float32",
                    optimizer: str = "adamw", activation_checkpointing: bool = False, base: float = 0,
                    shards: int = 1, accumulate: int = 1, packed: bool = False, slack: float = 0.0,
                    target: int | None = None) -> dict[str, float]:
    """Bytes by part while training on micro-batches of `batch` rows of `context` tokens; their sum is the peak. `target`:
    as in `activation_bytes`.

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
    activations = activation_bytes(s, batch, context, precision, activation_checkpointing, packed, target)
    working = working_bytes(s, batch, target or context, precision) + slack * activations
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
                activation_checkpointing: bool = False, base: float = 0, bits: float = 16,
                target: int | None = None) -> dict[str, float]:
    """Bytes by part while training rank-`rank` adapters on all matrices of the blocks (Hu et al. 2021): the frozen
    weights at `bits` a weight, and weights, gradients and AdamW states of the adapters alone."""
    s = shape_of(config)
    d, n_in, layers = s.d_model, 2 if s.gated else 1, s.n_layers + s.n_encoder_layers
    attention, feed_forward = 2 * (d + s.q_width) + 2 * (d + s.kv_width), (n_in + 1) * (d + s.d_ff)
    adapters = rank * ((layers + s.cross_layers) * attention + layers * s.n_experts * feed_forward)
    _check(batch=batch, context=context, rank=rank)
    return {
        "frozen weights": parameters(s).total * bits / 8,
        "adapters": 16 * adapters,
        "activations": activation_bytes(s, batch, context, precision, activation_checkpointing, target=target),
        "working space": working_bytes(s, batch, target or context, precision),
        "process": base,
    }


def kv_cache_bytes(config: ModelConfig | Shape, context: int, batch: int = 1, size: int = 2) -> int:
    """Keys and values of `batch` sequences of `context` tokens: 2·L·K·C numbers of `size` bytes a token. A decoder beside
    an encoder keeps as many of the source's tokens, taken to be `context` as well; an encoder has no cache."""
    s = shape_of(config)
    _check(batch=batch, context=context)
    layers = 0 if s.kind == "encoder" else s.n_layers + s.cross_layers
    return 2 * layers * s.kv_width * size * context * batch


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
