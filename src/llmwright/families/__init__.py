"""Published families: one small file each, one line each here."""

import difflib

from ..errors import RequestError
from ..model.config import ModelConfig
from .bert import BERT
from .bloom import BLOOM
from .falcon import FALCON
from .family import Family
from .gemma import GEMMA, GEMMA2, GEMMA3
from .gpt2 import GPT2
from .llama import LLAMA
from .marian import MARIAN
from .mistral import MISTRAL
from .mixtral import MIXTRAL
from .palm import PALM
from .qwen import QWEN2, QWEN3
from .roberta import ROBERTA, XLM_ROBERTA
from .t5 import T5

FAMILIES: dict[str, Family] = {family.model_type: family for family in (
    LLAMA, MISTRAL, MIXTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3, GPT2, BLOOM, FALCON, PALM,
    BERT, ROBERTA, XLM_ROBERTA,
    T5, MARIAN,
)}


def find(model_type: str | None) -> Family:
    """The family that calls itself `model_type`."""
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    near = [name for name in FAMILIES if name.startswith(f"{model_type}_")]  # gemma3 has pictures, gemma3_text none
    near = near or difflib.get_close_matches(str(model_type), FAMILIES, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise RequestError(f"model_type {model_type!r} is not supported; supported: {', '.join(FAMILIES)}{hint}")


def read_config(config: dict) -> ModelConfig:
    """A published `config.json` as our composition. Raises RequestError that names the key at fault."""
    if not isinstance(config, dict):
        raise RequestError(f"config.json: must be a mapping of keys to values, not {type(config).__name__}")
    family, quantized = find(config.get("model_type")), config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise RequestError(f"config.json: quantization_config: weights quantized by {method} are not read")
    return family.read(config)


def write_config(config: ModelConfig) -> dict:
    """Our composition as a published `config.json`."""
    family = find(config.family)
    return {"model_type": family.model_type, "architectures": [family.architecture], **family.write(config)}
