"""How text is cut before byte-level BPE merges it, by llama.cpp's names.

A tokenizer.json writes the steps out. A GGUF file has only a name (`tokenizer.ggml.pre`), and llama.cpp the code for
it. Here is what each name stands for, as the published tokenizer.json of its family writes it. llama.cpp's own patterns
give the same pieces, but for three things that it leaves out: Qwen composes accents first (NFC), Mistral's tekken keeps
combining marks in a word, and Falcon cuts digits off the space before them.
"""

from . import anatomy, bulk

_LLAMA3, _QWEN2 = bulk._GPT4 % "{1,3}", bulk._GPT4 % ""
_WORD_CASE = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
              r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
              r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def _split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def byte_level(use_regex: bool) -> dict:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


_DIGITS = {"type": "Digits", "individual_digits": True}
_BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"
# What llama.cpp calls the ways to cut text → the steps of the published tokenizer.json. Of several names for the same
# steps, the first is the one to write.
PRE_TOKENIZERS: dict[tuple[str, ...], list[dict]] = {
    ("gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "mellum"): [byte_level(True)],
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"): [_DIGITS, byte_level(True)],
    ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"): [
        _split(_LLAMA3), byte_level(False)],
    ("dbrx", "smaug-bpe"): [_split(_LLAMA3), byte_level(False)],
    ("qwen2", "deepseek-r1-qwen", "megrez"): [_split(_QWEN2), byte_level(False)],
    ("stablelm2", "hunyuan"): [_split(_QWEN2), byte_level(False)],
    ("tekken",): [_split(_WORD_CASE), byte_level(False)],
    ("bloom", "poro-chat", "gpt3-finnish"): [_split(_BLOOM), byte_level(False)],
    ("falcon",): [{"type": "Punctuation", "behavior": "Contiguous"}, byte_level(True),
                  {"type": "Digits", "individual_digits": False}, _split("[0-9][0-9][0-9]")],
    # files from before there were names; no published tokenizer does this
    ("default",): [_split(r"[\p{P}\$\+<=>\^~\|]+"), _split(bulk.GPT2), _split(r"\p{N}+"), _split("[0-9][0-9][0-9]"),
                   byte_level(False)],
}
NAMES = {name: steps for names, steps in PRE_TOKENIZERS.items() for name in names}
WHOLE_WORDS_FIRST = {*(n for names in PRE_TOKENIZERS if "llama-bpe" in names for n in names), "tekken"}  # ignore_merges
BEGINS = WHOLE_WORDS_FIRST  # those of which llama.cpp puts bos before a text unless told
NORMALIZED = {n for names in PRE_TOKENIZERS if "qwen2" in names for n in names}  # NFC, as Qwen publishes it


def _key(steps: list[dict]) -> list[tuple]:
    """What matters of the steps that cut a text."""
    keys = []
    for step in steps:
        kind = step["type"]
        if kind == "Split":
            keys.append((kind, *step["pattern"].items(), step["behavior"], bool(step.get("invert"))))
        else:
            told = ("use_regex", "add_prefix_space", "individual_digits", "behavior")
            keys.append((kind, *(step.get(key) for key in told)))
    return keys


def name_of(tree: dict) -> str | None:
    """llama.cpp's name for the way `tree` cuts text."""
    normalizers = [step["type"] for step in anatomy.components(tree.get("normalizer"))]
    steps = _key([{"use_regex": True, **s} if s["type"] == "ByteLevel" else s
                  for s in anatomy.components(tree.get("pre_tokenizer"))])
    for (name, *_), known in PRE_TOKENIZERS.items():
        if (steps == _key(known) and bool(tree["model"].get("ignore_merges")) == (name in WHOLE_WORDS_FIRST)
                and normalizers == (["NFC"] if name in NORMALIZED else [])):
            return name
    return None
