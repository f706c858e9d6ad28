"""Small random models of every architecture that GGUF has here, made by transformers, with a tokenizer llama.cpp knows;
and llama.cpp itself, in an environment of its own."""

import functools
import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch
import transformers

from llmwright.checkpoint import directory
from llmwright.engine.generate import generate
from llmwright.engine.sampler import GREEDY
from llmwright.tokens.gguf_pre_tokenizers import NAMES
from llmwright.tokens.tokenizer import Tokenizer
from llmwright.tokens.train import train

PEER = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "llmwright" / "peers" / "llama-cpp"
VOCABULARY = 420  # what the tokenizer has: llama.cpp also chooses rows that no token stands for

_COMMON = dict(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, initializer_range=0.2)
_LLAMA = dict(_COMMON, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=96)
_ROPE = {"rope_theta": 300.0, "factor": 3.0, "original_max_position_embeddings": 32}
_LLAMA3 = {**_ROPE, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_GEMMA = dict(_LLAMA, head_dim=24, query_pre_attn_scalar=24, sliding_window=7)

CASES = {
    "llama": (transformers.LlamaConfig, _LLAMA),
    "llama biases, one kv head": (
        transformers.LlamaConfig, dict(_LLAMA, num_key_value_heads=1, attention_bias=True, mlp_bias=True)),
    "llama tied, wide heads": (transformers.LlamaConfig, dict(_LLAMA, head_dim=32, tie_word_embeddings=True)),
    "llama linear": (transformers.LlamaConfig, dict(_LLAMA, rope_parameters={**_ROPE, "rope_type": "linear"})),
    "llama yarn": (transformers.LlamaConfig, dict(_LLAMA, rope_parameters={**_ROPE, "rope_type": "yarn"})),
    "llama yarn tuned": (transformers.LlamaConfig, dict(_LLAMA, rope_parameters={
        **_ROPE, "rope_type": "yarn", "attention_factor": 1.3})),
    "llama 3": (transformers.LlamaConfig, dict(_LLAMA, head_dim=32, rope_parameters=_LLAMA3)),
    "mistral": (transformers.MistralConfig, dict(_LLAMA, sliding_window=90)),
    "mixtral": (transformers.MixtralConfig, dict(_LLAMA, num_local_experts=4)),
    "qwen2": (transformers.Qwen2Config, _LLAMA),
    "qwen3": (transformers.Qwen3Config, dict(_LLAMA, head_dim=32, tie_word_embeddings=True)),
    "gpt2": (transformers.GPT2Config, dict(_COMMON, n_embd=64, n_layer=2, n_head=4, n_positions=96)),
    "gemma": (transformers.GemmaConfig, dict(_LLAMA, head_dim=24)),
    "gemma2": (transformers.Gemma2Config, _GEMMA),
    "gemma3": (transformers.Gemma3TextConfig, dict(_GEMMA, num_hidden_layers=7, initializer_range=0.1, rope_parameters={
        "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}})),
    "bloom": (transformers.BloomConfig, dict(_COMMON, hidden_size=64, n_layer=2, n_head=4)),
    "bloom 6 heads": (transformers.BloomConfig, dict(_COMMON, hidden_size=96, n_layer=2, n_head=6)),
    "falcon 7b": (transformers.FalconConfig, dict(
        _COMMON, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=96)),
    "falcon 40b": (transformers.FalconConfig, dict(
        _COMMON, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2,
        new_decoder_architecture=True, max_position_embeddings=96)),
}


@functools.cache
def theirs(case: str):
    """The transformers model, every parameter random, so that a forgotten one shows."""
    torch.manual_seed(0)
    kind, options = CASES[case]
    model = transformers.AutoModelForCausalLM.from_config(kind(**options), attn_implementation="eager").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.normal_(1.0 if ("norm" in name or "ln_" in name) and "gemma" not in case else 0.0, 0.2)
    return model


def ours(case: str, folder: Path):
    """The same model here, through its published files."""
    theirs(case).save_pretrained(folder)
    return directory.load(folder)


@functools.cache
def tokenizer(pre: str = "gpt-2") -> Tokenizer:
    """A small byte-level tokenizer that cuts text in a way llama.cpp has."""
    folder = Path(sysconfig.get_path("stdlib"))
    tree = train([(folder / name).read_text() for name in ("abc.py", "ast.py", "this.py")], "bpe", 420).tree
    steps = NAMES[pre]
    steps = {"type": "Sequence", "pretokenizers": steps} if len(steps) > 1 else steps[0]
    return Tokenizer({**tree, "pre_tokenizer": steps}, {
        "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>",
        "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"})


def llama_cpp(script: str, *arguments) -> list:
    """What `script` prints, JSON, run with `arguments` where llama.cpp is; skips where it is not."""
    if not (PEER / "installed").exists():
        pytest.skip("needs llama.cpp in an environment of its own: python bench/peers.py llama-cpp (takes minutes)")
    script = "import sys, json\narguments = json.loads(sys.stdin.read())\n" + script
    done = subprocess.run([PEER / "bin" / "python", "-c", script], input=json.dumps(arguments), capture_output=True,
                          text=True, timeout=250, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


PROMPT = list(range(5, 45))
CONTINUE = """
from llama_cpp import Llama
texts = []
for path, ids, n in arguments[0]:
    model = Llama(path, n_ctx=96, verbose=False, n_threads=1, type_k=0, type_v=0)  # float32 keys and values
    found = []
    for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
        if token == model.token_eos() or len(found) == n:
            break
        found.append(token)
    texts.append(found)
print(json.dumps(texts))
"""


def greedy(model, tokenizer: Tokenizer, n: int) -> list[int]:
    """What our engine continues PROMPT with; CONTINUE does the same in llama.cpp."""
    ids = generate(model, tokenizer, [PROMPT], max_tokens=n, sampling=GREEDY)[0].ids
    return [i for i in ids if i != tokenizer.eos_id]
