"""Bulk encoding of byte-level BPE with tiktoken, where it provably gives the same ids as the tokenizers library.

tokenizers merges by a list of pairs: of all neighbours it merges the pair that stands first in the list, the leftmost
one of several. tiktoken has no list: it merges the neighbours whose joined bytes have the lowest id, and takes a piece
that is a token whole. Both are the same when

1. the results of the merges have rising ids, and each part of a merge is a single byte or the result of an earlier one;
2. every token, given alone to the tokenizers model, comes out as itself;
3. both cut the text into the same pieces, and nothing else changes it (no normalizer, no tokens added as plain text).

Why. By 1, merging the first pair in the list is the same as going down the list once, applying each pair everywhere.
Suppose that at the turn of a token t two neighbours c, d spell t, so that tiktoken would join them. No merge so far
crossed the ends of that span (they are still boundaries), so inside it went as it goes for t alone. Alone, t comes out
as t (2), and at this turn it is c, d: hence the pair (c, d) is in the list, at this turn, and tokenizers joins it too.
The reverse holds since every pair in the list spells its token. And by 2 a piece that is a token comes out whole.

For 3, patterns are taken from a list whose two spellings the tests compare on every character; since the two libraries
may know different versions of Unicode, the letters, marks and digits new in each version are also tried once here.
"""

import numpy as np

from . import anatomy, bytelevel

# What `train` uses. A word may take one character before it (a space, a bracket, a dot); digits go in threes;
# white space stays together, so a newline and the indentation after it are one piece. It has no look-ahead, so tiktoken
# runs it as an automaton. Against Llama 3's pattern in one run (vocabulary 4096, held-out text, CPU time of one thread
# on a busy machine): on Python source 32 against 17 MB/s and 3 % fewer tokens; on English prose 24 against 17 MB/s and
# 0.4 % more tokens (1.2 % more than with GPT-2's pattern, which ran at 15 MB/s).
PATTERN = r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
PATTERNS = {PATTERN, GPT2, _GPT4 % "{1,3}", _GPT4 % ""}  # ours, GPT-2, Llama 3, Qwen 2 and 3
TRAINED = {"llmwright": PATTERN, "gpt-2": GPT2, "llama-bpe": _GPT4 % "{1,3}"}  # `train` can use; llama.cpp's names

# Letters, digits and marks that came with Unicode 13, 14, 15, 15.1, 16 and 17.
NEW_CHARACTERS = "\u08be\U00018b00\u0870\U0001e290\U0001e4d0\U00011f50\U0002ebf0\u1c89\U00010d40\u0897\ua7ce\u1acf"


def pattern_of(tree: dict) -> str | None:
    """The pattern that cuts the text into pieces, if it is one of PATTERNS."""
    steps = anatomy.components(tree.get("pre_tokenizer"))
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1].get("add_prefix_space", True):
        return None
    if steps[-1].get("use_regex", True):
        return GPT2 if len(steps) == 1 else None
    if len(steps) != 2 or steps[0]["type"] != "Split":
        return None
    split = steps[0]
    pattern = split["pattern"].get("Regex")
    plain = split["behavior"] == "Isolated" and not split.get("invert") and pattern in PATTERNS
    return pattern if plain else None


def ranks_of(tree: dict) -> dict[bytes, int] | None:
    """Token bytes -> id, if condition 1 holds."""
    model, specials = tree["model"], anatomy.special_tokens(tree)
    if model.get("dropout") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    vocabulary = {token: i for token, i in model["vocab"].items() if token not in specials}
    known, last = set(map(bytelevel.CHARACTER.get, bytelevel.UTF8_BYTES)), -1
    if not known <= vocabulary.keys():
        return None
    known.update(bytelevel.BYTE.keys() & vocabulary.keys())
    for pair in model["merges"]:
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        result = vocabulary.get(left + right, -1)
        if result <= last or left not in known or right not in known:
            return None
        known.add(left + right)
        last = result
    if len(known) != len(vocabulary):  # a token that no merge makes
        return None
    return {bytelevel.to_bytes(token): i for token, i in vocabulary.items()}


def tokens_encode_to_themselves(tree: dict) -> bool:
    """Condition 2."""
    import json

    from tokenizers import Tokenizer

    model = {**tree["model"], "ignore_merges": False}
    bare = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    specials = anatomy.special_tokens(tree)
    tokens = [token for token in model["vocab"] if token not in specials]
    encoded = bare.encode_batch_fast(tokens, add_special_tokens=False)
    return all(e.ids == [model["vocab"][token]] for token, e in zip(tokens, encoded, strict=True))


class Bulk:
    """A tiktoken encoding with the ids of a tokenizer.json. Threads may share it, and run at once."""

    def __init__(self, pattern: str, ranks: dict[bytes, int], specials: dict[str, int]):
        import tiktoken

        self.encoding = tiktoken.Encoding("bulk", pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials)

    def encode(self, text: str) -> np.ndarray:
        """The ids of `text`, uint32, no special tokens among them."""
        return self.encoding.encode_to_numpy(text, disallowed_special=())


def build(tree: dict, reference) -> Bulk | None:
    """The bulk encoder for this tokenizer.json, or None where equal ids are not proved.

    `reference(text) -> list[int]` encodes with the tokenizers library.
    """
    model = tree["model"]
    if model["type"] != "BPE" or tree.get("normalizer") is not None:
        return None
    if any(not token.get("special") for token in tree.get("added_tokens", [])):
        return None
    pattern = pattern_of(tree)
    ranks = ranks_of(tree) if pattern else None
    if not ranks or not tokens_encode_to_themselves(tree):
        return None
    bulk = Bulk(pattern, ranks, anatomy.special_tokens(tree))
    probe = "".join(f"a{c}b {c}-{c}5{c}\n" for c in NEW_CHARACTERS)
    return bulk if bulk.encode(probe).tolist() == reference(probe) else None
