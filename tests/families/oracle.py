"""Small random models of transformers, which say what the right answer is."""

import torch
import transformers

COMMON = dict(vocab_size=131, bos_token_id=0, eos_token_id=0, attn_implementation="eager")
LLAMA = dict(
    **COMMON, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
    max_position_embeddings=48, initializer_range=0.15,
)
GPT2 = dict(**COMMON, n_embd=64, n_layer=3, n_head=4, n_positions=48, initializer_range=0.15)

CASES = {
    "llama": (transformers.LlamaConfig, dict(LLAMA, num_key_value_heads=4)),
    "llama grouped": (transformers.LlamaConfig, dict(LLAMA, num_key_value_heads=2)),
    "llama one kv head, tied": (transformers.LlamaConfig, dict(LLAMA, num_key_value_heads=1, tie_word_embeddings=True)),
    "llama biases": (
        transformers.LlamaConfig, dict(LLAMA, num_key_value_heads=2, attention_bias=True, mlp_bias=True)),
    "llama wide heads": (transformers.LlamaConfig, dict(LLAMA, num_key_value_heads=2, head_dim=32)),
    "llama theta": (
        transformers.LlamaConfig,
        dict(LLAMA, num_key_value_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "qwen3": (transformers.Qwen3Config, dict(LLAMA, num_key_value_heads=2, head_dim=32)),
    "qwen3 tied, biases": (
        transformers.Qwen3Config,
        dict(LLAMA, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, attention_bias=True)),
    "gpt2": (transformers.GPT2Config, GPT2),
    "gpt2 untied, relu": (
        transformers.GPT2Config, dict(GPT2, tie_word_embeddings=False, activation_function="relu", n_inner=96)),
    "gpt2 exact gelu": (transformers.GPT2Config, dict(GPT2, activation_function="gelu", layer_norm_epsilon=1e-3)),
}


def make(case: str, seed: int = 0):
    """A transformers model with every parameter random, biases and norms too, so that a forgotten one shows."""
    torch.manual_seed(seed)
    kind, options = CASES[case]
    model = transformers.AutoModelForCausalLM.from_config(kind(**options), attn_implementation="eager").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.normal_(1.0 if "norm" in name or "ln_" in name else 0.0, 0.2)
    return model
