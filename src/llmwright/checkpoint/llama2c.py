"""llama2.c's legacy checkpoints (Karpathy 2023, github.com/karpathy/llama2.c): one `.bin` with a Llama in float32.

    7 whole numbers of 32 bits: d_model, d_ff, layers, heads, key-value heads, vocabulary (negative: the head is not
    tied to the embeddings), context
    the embeddings; then, each for all layers: attention norms, query, key, value, output, feed-forward norms, gate,
    down, up; the last norm; cosines and sines of the rotary angles, which are computed here; the head, where it is one

Its tokenizer is a SentencePiece model, or `tokenizer.bin`: the longest token's length, then score, length and text of
each token. Rows of query and key are in the order of rotary pairs, as in GGUF.
"""

import math
import mmap
import struct
from pathlib import Path

import torch
from torch import Tensor

from .. import families
from ..errors import RequestError
from ..model.transformer import Transformer
from ..tokens import anatomy, sentencepiece_model
from ..tokens.load import load as load_tokenizer
from ..tokens.tokenizer import Tokenizer
from .gguf_names import pairs
from .weights import Stored, assemble

HEADER = struct.Struct("<7i")
LONGEST_TOKEN = 10_000  # bytes
LATER = {0x616B3432: "a later version of llama2.c's checkpoints (ak42)"}


def read_config(path: Path | str) -> dict:
    """The header as a published config.json of the Llama family."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER.size)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    if len(header) < HEADER.size:
        raise _fail(path, f"it has {len(header)} bytes; its header alone takes {HEADER.size}")
    d_model, d_ff, layers, heads, kv_heads, vocabulary, context = HEADER.unpack(header)
    if d_model in LATER:
        raise RequestError(f"{path}: {LATER[d_model]}; only the first one (export with --version 0) is read")
    sizes = dict(d_model=d_model, d_ff=d_ff, layers=layers, heads=heads, kv_heads=kv_heads, context=context,
                 vocabulary=abs(vocabulary))
    if wrong := [f"{name} {n:,}" for name, n in sizes.items() if not 0 < n < 2**24]:
        raise _fail(path, f"its header says {', '.join(wrong)}")
    if d_model % heads or heads % kv_heads or d_model // heads % 2:
        raise _fail(path, f"its header says {heads} heads, {kv_heads} for keys and values, of a width of {d_model}")
    return {
        "model_type": "llama", "vocab_size": abs(vocabulary), "hidden_size": d_model, "intermediate_size": d_ff,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": d_model // heads, "max_position_embeddings": context, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": vocabulary > 0, "rope_theta": 10_000.0, "bos_token_id": 1, "eos_token_id": 2,
    }


def load(path: Path | str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Transformer, Tokenizer]:
    """The model, its tables and matrices in `dtype`, and its tokenizer, from a file beside it.

    Raises RequestError when the file is not as long as its header says, or no tokenizer is there.
    """
    path = Path(path).expanduser()
    c = read_config(path)
    beside = find_tokenizer(path, c["vocab_size"])
    return assemble(families.read_config(c), stored(path, c), path, dtype=dtype, device=device), beside


def tokenizer(path: Path) -> Tokenizer:
    return find_tokenizer(path, read_config(path)["vocab_size"])


def stored(path: Path, c: dict) -> list[Stored]:
    """The weights under their published names, mapped."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # a change to a weight stays in memory
    layers, parts = c["num_hidden_layers"], _parts(c)
    said = HEADER.size + 4 * sum(math.prod(shape) * (layers if "{i}" in name else 1) for name, shape in parts)
    if len(mapped) != said:
        raise _fail(path, f"its header calls for {said:,} bytes, and it has {len(mapped):,}")
    found, at = [], HEADER.size
    for name, shape in parts:
        for i in range(layers) if "{i}" in name else (0,):
            if name:
                found.append(_tensor(path, mapped, name.replace("{i}", str(i)), shape, at, c))
            at += 4 * math.prod(shape)
    return found


def _parts(c: dict) -> list[tuple[str, tuple[int, ...]]]:
    """(published name, shape) in the file's order; the rotary tables have no name."""
    d, f, v, wide = (c[key] for key in ("hidden_size", "intermediate_size", "vocab_size", "head_dim"))
    context = c["max_position_embeddings"]
    kv = c["num_key_value_heads"] * wide
    layer = "model.layers.{i}."
    parts = [
        ("model.embed_tokens.weight", (v, d)), (layer + "input_layernorm.weight", (d,)),
        (layer + "self_attn.q_proj.weight", (d, d)), (layer + "self_attn.k_proj.weight", (kv, d)),
        (layer + "self_attn.v_proj.weight", (kv, d)), (layer + "self_attn.o_proj.weight", (d, d)),
        (layer + "post_attention_layernorm.weight", (d,)), (layer + "mlp.gate_proj.weight", (f, d)),
        (layer + "mlp.down_proj.weight", (d, f)), (layer + "mlp.up_proj.weight", (f, d)), ("model.norm.weight", (d,)),
        ("", (2, context, wide // 2)),
    ]
    return parts if c["tie_word_embeddings"] else [*parts, ("lm_head.weight", (v, d))]


def _tensor(path: Path, mapped: mmap.mmap, name: str, shape: tuple[int, ...], at: int, c: dict) -> Stored:
    heads = "num_attention_heads" if "q_proj" in name else "num_key_value_heads" if "k_proj" in name else None

    def read(dtype: torch.dtype) -> Tensor:
        tensor = torch.frombuffer(mapped, dtype=torch.float32, count=math.prod(shape), offset=at).view(shape)
        return pairs(heads).undo(tensor, c) if heads else tensor

    return Stored(name, shape, "F32", path, True, read)


def find_tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer beside the checkpoint: llama2.c's own file, or what it was made from."""
    names = ("tokenizer.bin", f"tok{vocab_size}.bin", f"tok{vocab_size}.model", "tokenizer.model", "tokenizer.json")
    for name in names:
        file = path.with_name(name)
        if file.is_file():
            tokenizer = read_tokenizer(file) if file.suffix == ".bin" else load_tokenizer(file)
            if tokenizer.vocab_size == vocab_size:
                return tokenizer
    raise RequestError(f"{path}: it needs its tokenizer of {vocab_size:,} tokens beside it: one of {', '.join(names)}")


def read_tokenizer(path: Path) -> Tokenizer:
    """llama2.c's tokenizer.bin. Raises RequestError when it is none, or cut short."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    pieces, at = [], 4
    try:
        (longest,) = struct.unpack_from("<I", data)
        while at < len(data):
            score, length = struct.unpack_from("<fI", data, at)
            at += 8
            if not length <= min(longest, LONGEST_TOKEN) or length > len(data) - at:
                raise ValueError
            pieces.append(_piece(len(pieces), data[at : at + length].decode(), score))
            at += length
        tree, config = sentencepiece_model.assemble(
            path, pieces, {"unk": 0, "bos": 1, "eos": 2, "pad": None}, space_prefix=True, strip_spaces=False)
        return Tokenizer(tree, config)
    except (ValueError, struct.error):
        raise RequestError(f"{path}: not a tokenizer of llama2.c, or cut short: at byte {at:,}") from None


def _piece(i: int, text: str, score: float) -> tuple[str, float, int]:
    """llama2.c writes spaces for ▁, and line ends around the three special tokens."""
    if i < 3:
        return text.strip() or "<unk>", score, sentencepiece_model.UNKNOWN if i == 0 else sentencepiece_model.CONTROL
    if anatomy.BYTE_FALLBACK.fullmatch(text):
        return text, score, sentencepiece_model.BYTE
    return text.replace(" ", anatomy.SPACE), score, sentencepiece_model.NORMAL


def _fail(path: Path, why: str) -> RequestError:
    return RequestError(f"{path}: not a checkpoint of llama2.c, or cut short: {why}")
