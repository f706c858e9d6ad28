"""A GGUF file's tokenizer as the content of a tokenizer.json, and back.

The metadata `tokenizer.ggml.*` hold the tokens by id, their types, and either

- merges, and the *name* of the pattern that cuts text first (`model` is "gpt2", byte-level BPE): a name that
  `gguf_pre_tokenizers.py` does not know is refused, never guessed;
- or scores (`model` is "llama"): a SentencePiece BPE model taken apart, which is put together again here.
"""

import json

from ..errors import RequestError
from . import anatomy, around, bytelevel, sentencepiece_model
from .gguf_pre_tokenizers import BEGINS, NAMES, NORMALIZED, WHOLE_WORDS_FIRST, byte_level, name_of
from .tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # as in SentencePiece
ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


def read(metadata) -> tuple[dict, dict]:
    """(tokenizer.json content, tokenizer_config.json content) of a GGUF file's `metadata` (checkpoint.gguf_file).

    Raises RequestError, one line, when the tokenizer is of a kind that is not read, or its parts do not fit.
    """
    model = metadata.get("tokenizer.ggml.model", str)
    if "tokenizer.huggingface.json" in metadata:  # the truth, where a file has it
        return _whole(metadata)
    if model not in ("gpt2", "llama"):
        raise RequestError(f"{metadata.path}: its tokenizer is of the kind {model!r} (tokenizer.ggml.model), which is "
                           "not read; gpt2 and llama are")
    tokens = metadata.get("tokenizer.ggml.tokens", list)
    types = metadata.get("tokenizer.ggml.token_type", list, [NORMAL] * len(tokens))
    if not tokens or not all(type(t) is str for t in tokens):
        raise RequestError(f"{metadata.path}: tokenizer.ggml.tokens is not a list of texts")
    if len(types) != len(tokens):
        raise RequestError(f"{metadata.path}: tokenizer.ggml.token_type has {len(types):,} entries for {len(tokens):,} "
                           "tokens")
    ids = {role: _id(metadata, name, len(tokens)) for role, name in ROLES.items()}
    tree, named, begins = (_bpe if model == "gpt2" else _sentencepiece)(metadata, tokens, types, ids)
    begins = metadata.get("tokenizer.ggml.add_bos_token", bool, begins)
    ends = metadata.get("tokenizer.ggml.add_eos_token", bool, False)
    tree["post_processor"] = _around(tokens, ids["bos"] if begins else None, ids["eos"] if ends else None)
    config = {"add_bos_token": begins, "add_eos_token": ends, **named}
    return tree, config | _template(metadata)


def _template(metadata) -> dict:
    template = metadata.get("tokenizer.chat_template", str, None)
    return {"chat_template": template} if template else {}


def _whole(metadata) -> tuple[dict, dict]:
    try:
        tree = json.loads(metadata.get("tokenizer.huggingface.json", str))
        tokens = anatomy.token_list(tree)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise RequestError(f"{metadata.path}: its tokenizer.huggingface.json is not a tokenizer.json") from None
    ids = {role: _id(metadata, name, len(tokens)) for role, name in ROLES.items()}
    return tree, {f"{role}_token": tokens[i] for role, i in ids.items() if i is not None} | _template(metadata)


def _id(metadata, name: str, count: int) -> int | None:
    i = metadata.get(f"tokenizer.ggml.{name}_token_id", int, None)
    if i is not None and not 0 <= i < count:
        if i in (2**32 - 1, -1):  # how llama.cpp writes "none"
            return None
        raise RequestError(f"{metadata.path}: tokenizer.ggml.{name}_token_id is {i}; there are {count:,} tokens")
    return i


def _around(tokens: list[str], bos: int | None, eos: int | None) -> dict | None:
    """What goes before and after a text."""
    marks = [None if i is None else {"SpecialToken": {"id": tokens[i], "type_id": 0}} for i in (bos, eos)]
    if marks == [None, None]:
        return None

    def wrap(name: str) -> list[dict]:
        return [part for part in (marks[0], {"Sequence": {"id": name, "type_id": 0}}, marks[1]) if part]

    return {"type": "TemplateProcessing", "single": wrap("A"), "pair": wrap("A") + wrap("B"),
            "special_tokens": {tokens[i]: {"id": tokens[i], "ids": [i], "tokens": [tokens[i]]}
                               for i in (bos, eos) if i is not None}}


def _filler(i: int, token: str, kind: int) -> bool:
    """Rows that llama.cpp's converter names, where a model has more rows than its tokenizer tokens."""
    return kind == UNUSED and token == f"[PAD{i}]"


# byte-level BPE


def _bpe(metadata, tokens, types, ids) -> tuple[dict, dict, bool]:
    pre = metadata.get("tokenizer.ggml.pre", str, "default")
    if pre not in NAMES:
        raise RequestError(f"{metadata.path}: its tokenizer cuts text in the way called {pre!r} (tokenizer.ggml.pre), "
                           f"which is not known here; known: {', '.join(NAMES)}")
    vocabulary = {token: i for i, token in enumerate(tokens) if not _filler(i, token, types[i])}
    merges = []
    for number, merge in enumerate(metadata.get("tokenizer.ggml.merges", list), 1):
        pair = merge.split(" ") if type(merge) is str else ()
        if len(pair) != 2 or not (pair[0] in vocabulary and pair[1] in vocabulary and "".join(pair) in vocabulary):
            raise RequestError(f"{metadata.path}: merge {number:,} of tokenizer.ggml.merges, {str(merge)[:40]!r}, is "
                               "not two tokens that a third one joins")
        merges.append(list(pair))
    plain = [token for token, i in vocabulary.items() if types[i] not in (CONTROL, USER_DEFINED, UNKNOWN, UNUSED)]
    if strange := set("".join(plain)) - bytelevel.BYTE.keys():
        token = next(token for token in plain if strange & set(token))
        raise RequestError(f"{metadata.path}: the token {token[:40]!r} is not written in the byte-level alphabet")
    unk = tokens[ids["unk"]] if ids["unk"] is not None and types[ids["unk"]] == UNKNOWN else None
    tree = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [_added(i, token, special=types[i] != USER_DEFINED) for token, i in vocabulary.items()
                         if types[i] in (CONTROL, USER_DEFINED, UNKNOWN, UNUSED)],
        "normalizer": {"type": "NFC"} if pre in NORMALIZED else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": NAMES[pre]} if len(NAMES[pre]) > 1 else NAMES[pre][0],
        "decoder": byte_level(True),
        "model": {"type": "BPE", "dropout": None, "unk_token": unk, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": pre in WHOLE_WORDS_FIRST, "vocab": vocabulary, "merges": merges},
    }
    return tree, {f"{role}_token": tokens[i] for role, i in ids.items() if i is not None}, pre in BEGINS


def _added(i: int, token: str, special: bool) -> dict:
    return {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": special}


# SentencePiece


def _sentencepiece(metadata, tokens, types, ids) -> tuple[dict, dict, bool]:
    scores = metadata.get("tokenizer.ggml.scores", list)
    if len(scores) != len(tokens):
        raise RequestError(f"{metadata.path}: tokenizer.ggml.scores has {len(scores):,} entries for {len(tokens):,} "
                           "tokens")
    count = len(tokens)
    while count and _filler(count - 1, tokens[count - 1], types[count - 1]):
        count -= 1
    pieces = [(token.replace(" ", anatomy.SPACE) if kind == USER_DEFINED else token, score, kind)
              for token, score, kind in zip(tokens[:count], scores, types)]
    tree, named = sentencepiece_model.assemble(
        metadata.path, pieces, ids, space_prefix=metadata.get("tokenizer.ggml.add_space_prefix", bool, True),
        strip_spaces=metadata.get("tokenizer.ggml.remove_extra_whitespaces", bool, False))
    return tree, named, True


# and back


def write(tokenizer: Tokenizer, rows: int, pre: str | None = None) -> dict:
    """The metadata `tokenizer.*` of `tokenizer`, for a model with `rows` tokens.

    `pre`: the name of the way to cut text, where llama.cpp has none for this tokenizer's and the caller accepts
    another. Then, and only then, its ids differ there; the whole tokenizer.json is written beside it, under the
    format's key for that. Raises RequestError where llama.cpp has no such tokenizer.
    """
    tree, config = tokenizer.tree, tokenizer.config
    if tokenizer.kind != "bpe":
        raise RequestError(f"a tokenizer of the kind {tokenizer.kind} has no place in a GGUF file here; byte-level BPE "
                           "and SentencePiece BPE have")
    entries: dict = {}
    exact = True
    if tokenizer.byte_level:
        found = name_of(tree)
        exact = pre in (None, found)
        if pre is not None and pre not in NAMES:
            raise RequestError(f"--pre {pre!r} is not known; known: {', '.join(NAMES)}")
        if found is None and pre is None:
            raise RequestError(
                "llama.cpp knows no tokenizer that cuts text as this one does; --pre llama-bpe (or another name) "
                "writes that one instead, which cuts some words elsewhere than the model has learned; a model trained "
                "with tokenizer.pattern=llama-bpe needs none")
        entries |= {"model": "gpt2", "pre": pre or found, "merges": [
            merge if isinstance(merge, str) else " ".join(merge) for merge in tree["model"]["merges"]]}
    else:
        if pre is not None:
            raise RequestError(f"--pre {pre}: that is for byte-level BPE; this is a SentencePiece tokenizer")
        if not tree["model"].get("byte_fallback"):
            raise RequestError("a BPE tokenizer that neither works on bytes nor falls back to them has no place in a "
                               "GGUF file")
        entries |= {"model": "llama", "scores": _scores(tree, rows), "add_space_prefix": _space_prefix(tree)}
    tokens, types = _tokens(tokenizer, rows)
    entries |= {"tokens": tokens, "token_type": types}
    for role, name in ROLES.items():
        if (i := getattr(tokenizer, f"{role}_id")) is not None:
            entries[f"{name}_token_id"] = i
    whole = around.read(tree).single
    for role, (mark, _) in (("bos", whole[0]), ("eos", whole[-1])):
        said, i = config.get(f"add_{role}_token"), getattr(tokenizer, f"{role}_id")
        there = i is not None and not isinstance(mark, str) and i in mark
        entries[f"add_{role}_token"] = said if isinstance(said, bool) else there
    written = {f"tokenizer.ggml.{key}": value for key, value in entries.items()}
    if not exact:
        written["tokenizer.huggingface.json"] = json.dumps(tree, ensure_ascii=False)
    return written


def _tokens(tokenizer: Tokenizer, rows: int) -> tuple[list[str], list[int]]:
    """Token texts and types by id; rows without a token are named as llama.cpp's converter does."""
    added = {token["id"]: token for token in tokenizer.tree.get("added_tokens", [])}
    present = set(anatomy.model_vocabulary(tokenizer.tree).values()) | added.keys()
    tokens, types = [], []
    for i in range(max(rows, tokenizer.vocab_size)):
        token = tokenizer.token(i) if i in present else f"[PAD{i}]"
        kind = UNUSED if i not in present else NORMAL
        if i in added:
            kind = CONTROL if added[i].get("special") else USER_DEFINED
        if not tokenizer.byte_level:
            if i == tokenizer.unk_id:
                kind = UNKNOWN
            elif kind == NORMAL and anatomy.BYTE_FALLBACK.fullmatch(token):
                kind = BYTE
        tokens.append(token)
        types.append(kind)
    return tokens, types


def _space_prefix(tree: dict) -> bool:
    """Whether a space is put before the text. RequestError where spaces are treated as llama.cpp cannot."""
    prefix = False
    for step in anatomy.components(tree.get("normalizer")) + anatomy.components(tree.get("pre_tokenizer")):
        kind = step["type"]
        if kind == "Prepend" and step["prepend"] == anatomy.SPACE:
            prefix = True
        elif kind == "Metaspace":
            prefix |= step.get("prepend_scheme", "always") != "never"
        elif not (kind == "Replace" and step["pattern"] == {"String": " "} and step["content"] == anatomy.SPACE
                  or kind == "Split" and step["pattern"] == {"String": " "}):
            raise RequestError(f"llama.cpp knows no SentencePiece BPE tokenizer with the step {kind}")
    return prefix


def _scores(tree: dict, rows: int) -> list[float]:
    """SentencePiece joins the pair whose result scores best: minus the place of the first merge that makes a token."""
    vocabulary, merges = anatomy.model_vocabulary(tree), tree["model"]["merges"]
    scores = [-float(len(merges))] * max(rows, len(anatomy.token_list(tree)))
    for place, merge in reversed(list(enumerate(merges))):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        scores[vocabulary[left + right]] = -float(place)
    return scores
