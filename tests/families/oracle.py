"""Small random models of transformers, which say what the right answer is."""

import torch
import transformers

COMMON = dict(vocab_size=131, bos_token_id=0, eos_token_id=0, attn_implementation="eager")
LLAMA = dict(
    **COMMON, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
    max_position_embeddings=48, initializer_range=0.15,
)
GROUPED = dict(LLAMA, num_key_value_heads=2)
GEMMA = dict(GROUPED, head_dim=24)  # wider than its share of the width
GPT2 = dict(**COMMON, n_embd=64, n_layer=3, n_head=4, n_positions=48, initializer_range=0.15)

# made for 16 positions, read at 48; a base so small that all channel pairs show
LINEAR = {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 300.0, "factor": 3.0}
YARN = {"rope_type": "yarn", "rope_theta": 300.0, "factor": 3.0, "original_max_position_embeddings": 16}
YARN_TUNED = dict(YARN, beta_fast=4.0, beta_slow=0.5, attention_factor=1.3, truncate=False)
YARN_DEEPSEEK = dict(YARN, mscale=1.0, mscale_all_dim=0.5)
LLAMA3 = dict(YARN, rope_type="llama3", factor=4.0, low_freq_factor=0.5, high_freq_factor=2.0)

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
    "llama gelu": (transformers.LlamaConfig, dict(GROUPED, hidden_act="gelu")),
    "llama linear": (transformers.LlamaConfig, dict(GROUPED, rope_parameters=LINEAR)),
    "llama dynamic": (
        transformers.LlamaConfig, dict(GROUPED, rope_parameters=DYNAMIC, max_position_embeddings=16)),
    "llama yarn": (transformers.LlamaConfig, dict(GROUPED, rope_parameters=YARN)),
    "llama yarn tuned": (transformers.LlamaConfig, dict(GROUPED, rope_parameters=YARN_TUNED)),
    "llama yarn deepseek": (transformers.LlamaConfig, dict(GROUPED, rope_parameters=YARN_DEEPSEEK)),
    "llama 3": (transformers.LlamaConfig, dict(GROUPED, rope_parameters=LLAMA3, head_dim=32)),
    "mistral": (transformers.MistralConfig, dict(GROUPED, sliding_window=None)),
    "mistral window": (transformers.MistralConfig, dict(GROUPED, sliding_window=7, head_dim=32)),
    "mixtral": (transformers.MixtralConfig, dict(GROUPED, num_local_experts=4)),
    "mixtral window, one of three": (
        transformers.MixtralConfig,
        dict(GROUPED, num_local_experts=3, num_experts_per_tok=1, sliding_window=9, tie_word_embeddings=True)),
    "qwen2": (transformers.Qwen2Config, GROUPED),
    "qwen2 window in later layers, tied": (
        transformers.Qwen2Config,
        dict(GROUPED, use_sliding_window=True, sliding_window=6, max_window_layers=1, tie_word_embeddings=True)),
    "qwen2 yarn": (transformers.Qwen2Config, dict(GROUPED, rope_parameters=YARN)),
    "qwen3 window in some layers": (
        transformers.Qwen3Config,
        dict(GROUPED, head_dim=16, use_sliding_window=True, sliding_window=5,
             layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "gemma": (transformers.GemmaConfig, GEMMA),
    "gemma biases, untied": (
        transformers.GemmaConfig, dict(GEMMA, attention_bias=True, tie_word_embeddings=False)),
    "gemma2": (
        transformers.Gemma2Config,
        dict(GEMMA, sliding_window=7, query_pre_attn_scalar=20, attn_logit_softcapping=2.0,
             final_logit_softcapping=6.0)),
    "gemma2 without caps": (
        transformers.Gemma2Config,
        dict(GEMMA, sliding_window=60, attn_logit_softcapping=None, final_logit_softcapping=None)),
    "gemma3": (
        transformers.Gemma3TextConfig,
        dict(GEMMA, num_hidden_layers=7, initializer_range=0.1, sliding_window=5, query_pre_attn_scalar=20,
             rope_parameters={"full_attention": dict(LINEAR, factor=8.0),
                              "sliding_attention": {"rope_type": "default", "rope_theta": 30.0}})),
    "gemma3 capped, untied": (
        transformers.Gemma3TextConfig,
        dict(GEMMA, sliding_window=9, final_logit_softcapping=5.0, tie_word_embeddings=False,
             layer_types=["full_attention", "sliding_attention", "full_attention"])),
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
                scales = ("norm" in name or "ln_" in name) and "gemma" not in case  # Gemma's are stored minus 1
                p.normal_(1.0 if scales else 0.0, 0.2)
    return model
