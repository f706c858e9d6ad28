"""What a tokenizer.json says: its kind, its tokens, their bytes, its special tokens and their roles.

`tree` is everywhere the parsed content of a tokenizer.json (the file format of Hugging Face's tokenizers library).
"""

import hashlib
import json
import re

from ..errors import RequestError
from . import bytelevel

SPACE = "▁"  # SentencePiece's visible space
BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")

# How published tokenizers name the roles, for files that come without a tokenizer_config.json.
USUAL_NAMES = {
    "bos": ["<|endoftext|>", "<s>", "<|begin_of_text|>", "<bos>", "[CLS]"],
    "eos": ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]"],
    "pad": ["<|pad|>", "<pad>", "[PAD]"],
    "unk": ["<|unk|>", "<unk>", "[UNK]"],
    "mask": ["<|mask|>", "<mask>", "[MASK]"],
}
SENTINEL = re.compile(r"<extra_id_(\d+)>")  # T5's marks of spans


def fingerprint(tree: dict) -> str:
    """sha256 (hex) of what decides the ids and the text: not of layout and key order, nor of what other tools switch
    on and save (padding, truncation, what goes around a text)."""
    aside = ("truncation", "padding", "version", "post_processor")
    content = {key: value for key, value in tree.items() if key not in aside}
    model = dict(tree["model"])
    if isinstance(model["vocab"], list):  # the library's JSON reader is off by a last digit now and then
        model["vocab"] = [[piece, f"{score:.9g}"] for piece, score in model["vocab"]]
    if "merges" in model:  # written "a b" by older versions of the library and ["a", "b"] by newer ones
        model["merges"] = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    content["model"] = model
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def components(part: dict | None) -> list[dict]:
    """A normalizer, pre-tokenizer or decoder as the flat list of its steps."""
    if part is None:
        return []
    for key in ("normalizers", "pretokenizers", "decoders"):
        if key in part:
            return [step for child in part[key] for step in components(child)]
    return [part]


def model_vocabulary(tree: dict) -> dict[str, int]:
    """Token text -> id of the model itself, without the tokens added beside it."""
    vocabulary = tree["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: [[piece, score], …], the place is the id
        return {piece: i for i, (piece, _) in enumerate(vocabulary)}
    return vocabulary


def token_list(tree: dict) -> list[str]:
    """Token text by id; "" where an id has no token."""
    by_id = {i: token for token, i in model_vocabulary(tree).items()}
    by_id.update((added["id"], added["content"]) for added in tree.get("added_tokens", []))
    return [by_id.get(i, "") for i in range(max(by_id, default=-1) + 1)]


def special_tokens(tree: dict) -> dict[str, int]:
    """Text -> id of the special tokens, in order of their ids."""
    found = {added["content"]: added["id"] for added in tree.get("added_tokens", []) if added.get("special")}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def sentinels(tree: dict) -> list[int]:
    """The ids of <extra_id_0>, <extra_id_1>, …, as far as there is no gap."""
    found = {int(match[1]): i for token, i in special_tokens(tree).items() if (match := SENTINEL.fullmatch(token))}
    return [found[n] for n in range(len(found)) if n in found]


def is_byte_level(tree: dict) -> bool:
    """Whether the tokens are written in the byte-level alphabet."""
    return any(step["type"] == "ByteLevel" for step in components(tree.get("pre_tokenizer")))


def kind(tree: dict) -> str:
    """bpe, unigram, wordpiece, words, and the two without merges: chars and bytes."""
    model = tree["model"]
    if model["type"] != "BPE":
        return {"Unigram": "unigram", "WordPiece": "wordpiece", "WordLevel": "words"}[model["type"]]
    if model["merges"]:
        return "bpe"
    return "bytes" if is_byte_level(tree) else "chars"


def roles(tree: dict, config: dict) -> dict[str, int | None]:
    """The ids of bos, eos, pad, unk and mask: as tokenizer_config.json names them, else by their usual names."""
    ids = {**model_vocabulary(tree), **{added["content"]: added["id"] for added in tree.get("added_tokens", [])}}
    specials = special_tokens(tree)
    named = any(f"{role}_token" in config for role in USUAL_NAMES)
    found: dict[str, int | None] = {}
    for role, usual in USUAL_NAMES.items():
        token = config.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None and token not in ids:
            raise RequestError(f"tokenizer_config.json: {role}_token {token!r} is not in the vocabulary")
        if token is None and not named:
            token = next((name for name in usual if name in specials), None)
        found[role] = ids[token] if token is not None else None
    model = tree["model"]
    if found["unk"] is None:
        found["unk"] = model["unk_id"] if "unk_id" in model else ids.get(model.get("unk_token"))
    return found


def token_bytes(tree: dict) -> list[bytes]:
    """The bytes each token stands for, by id. Without the byte-level alphabet, what the token adds inside a text."""
    byte_level, model = is_byte_level(tree), tree["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    fallback = model.get("byte_fallback", False)
    added = {token["id"] for token in tree.get("added_tokens", [])}
    visible_space = SPACE in json.dumps([tree.get("normalizer"), tree.get("pre_tokenizer"), tree.get("decoder")],
                                        ensure_ascii=False)

    def one(i: int, token: str) -> bytes:
        if i in added:
            return token.encode()
        token = token[len(prefix):] if prefix and token.startswith(prefix) else token
        if byte_level:
            return bytelevel.to_bytes(token)
        if fallback and (match := BYTE_FALLBACK.fullmatch(token)):
            return bytes([int(match[1], 16)])
        return (token.replace(SPACE, " ") if visible_space else token).encode()

    return [one(i, token) for i, token in enumerate(token_list(tree))]


def without_specials(tree: dict) -> dict:
    """The same tokenizer, in which no text becomes a special token.

    A special token that is also an entry of the model's vocabulary (`</s>` in T5's) could still be found there by the
    model, so its entry gets a name no text can have, at the same id. For Unigram that is the empty piece. Elsewhere
    it holds a space, which no piece of text holds when it reaches the model: it was a place to cut, or it is written
    Ġ or ▁ by then; and no merge leads to it. Tokens beside the vocabulary stay, to keep the ids after them: the
    caller sets `encode_special_tokens`, which passes over them.
    """
    inside = special_tokens(tree).keys() & model_vocabulary(tree).keys()
    if not inside:
        return tree
    model = dict(tree["model"])
    if isinstance(model["vocab"], list):
        model["vocab"] = [["" if piece in inside else piece, score] for piece, score in model["vocab"]]
    else:
        rename = {token: f" \ufffe{model['vocab'][token]}" for token in inside}
        model["vocab"] = {rename.get(token, token): i for token, i in model["vocab"].items()}
        if model.get("unk_token") in inside:
            model["unk_token"] = rename[model["unk_token"]]
    added = [token for token in tree["added_tokens"] if token["content"] not in inside]
    return {**tree, "model": model, "added_tokens": added, "post_processor": None}
