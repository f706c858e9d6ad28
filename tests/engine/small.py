"""A small random model with its tokenizer, and the same model in transformers."""

import functools
import sysconfig
from pathlib import Path

import torch

from llmwright import families
from llmwright.model.build import new
from llmwright.model.decoder import Decoder
from llmwright.model.encoder_decoder import EncoderDecoder
from llmwright.tokens.train import train

SHAPES = {
    "llama": dict(model_type="llama", hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  intermediate_size=96, max_position_embeddings=64, initializer_range=0.3),
    "qwen3": dict(model_type="qwen3", hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  head_dim=16, intermediate_size=96, max_position_embeddings=64, initializer_range=0.3),
    "gpt2": dict(model_type="gpt2", n_embd=48, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3),
}
TRANSLATORS = {
    "t5": dict(model_type="t5", d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
               tie_word_embeddings=False, relative_attention_num_buckets=8, relative_attention_max_distance=20,
               n_positions=64),
    "marian": dict(model_type="marian", d_model=48, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                   decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96, max_position_embeddings=64,
                   activation_function="relu", scale_embedding=True),
}


@functools.cache
def tokenizer(kind: str = "bpe"):
    folder = Path(sysconfig.get_path("stdlib"))
    texts = [(folder / name).read_text() for name in ("abc.py", "ast.py", "bdb.py", "this.py")]
    return train([*texts, "Größe — naïve café 你好，世界 🙂 " * 20], kind, 450)


def model(family: str = "qwen3", seed: int = 1, **change) -> Decoder:
    """Large weights, so that its choices differ from place to place. It ends texts, as its end token is a token."""
    t = tokenizer()
    shape = {**SHAPES[family], "vocab_size": t.vocab_size, "bos_token_id": t.bos_id, "eos_token_id": t.eos_id, **change}
    return new(families.read_config(shape), seed=seed).eval()


def translator(family: str = "t5", seed: int = 1, **change) -> EncoderDecoder:
    """Matrices random and large, so that its choices differ from place to place and from source to source."""
    t = tokenizer()
    shape = {**TRANSLATORS[family], "vocab_size": t.vocab_size, "pad_token_id": t.pad_id, "eos_token_id": t.eos_id,
             "decoder_start_token_id": t.pad_id, **change}
    made = new(families.read_config(shape), seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in made.named_parameters():
            std = 0.3
            if family == "marian":  # norms after each part: the others must not drown the attention
                std = 1.0 if "embed" in name else 0.1 if "feed_forward" in name else 0.6
            if p.ndim > 1:
                p.normal_(0, std, generator=generator)
    return made


def bias_head(made: Decoder, wanted: list[int]) -> Decoder:
    """The model, changed so that after the token `wanted[i]` comes `wanted[i + 1]`."""
    with torch.no_grad():
        for block in made.blocks:
            block.attention.out.weight.zero_()
            block.feed_forward.down.weight.zero_()
        for a, b in zip(wanted, wanted[1:]):
            made.head.weight[b] = 100 * made.norm(made.embed.weight[a])
    return made
