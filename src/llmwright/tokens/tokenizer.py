"""Text to token ids and back, whatever the tokenizer: one class around the content of a tokenizer.json.

That file is the truth: what is saved is read by transformers, vLLM and others with the same ids. Encoding goes the
fastest way that gives those ids: tiktoken for byte-level BPE (bulk.py), a table for characters and bytes, the
tokenizers library for the rest.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import RequestError
from . import anatomy, bulk

BULK_FROM = 2000  # characters; below, `encode` does not build the bulk encoder just for one text


class Tokenizer:
    """A tokenizer.

    tree: the parsed content of a tokenizer.json; config: of its tokenizer_config.json.

    kind            bpe, unigram, wordpiece, words, chars or bytes
    vocab_size      the highest id + 1: the rows a model needs
    bos_id, eos_id, pad_id, unk_id, mask_id      None where the tokenizer has no such token
    sentinel_ids    of <extra_id_0>, <extra_id_1>, …; empty where it has none
    special_tokens  text -> id
    byte_level      whether tokens are runs of bytes, so that decoding is exact
    fingerprint     sha256 (hex) of the content; a data directory stores it
    """

    def __init__(self, tree: dict, config: dict | None = None):
        self.tree, self.config = tree, dict(config or {})
        self.kind, self.byte_level = anatomy.kind(tree), anatomy.is_byte_level(tree)
        self.special_tokens = anatomy.special_tokens(tree)
        self._tokens = anatomy.token_list(tree)
        self.vocab_size = len(self._tokens)
        roles = anatomy.roles(tree, self.config)
        self.bos_id, self.eos_id, self.pad_id, self.unk_id, self.mask_id = (
            roles[role] for role in ("bos", "eos", "pad", "unk", "mask")
        )
        self.sentinel_ids = anatomy.sentinels(tree)

    def __reduce__(self):
        return Tokenizer, (self.tree, self.config)

    def __repr__(self):
        return f"Tokenizer({self.kind}, vocab_size={self.vocab_size})"

    @cached_property
    def fingerprint(self) -> str:
        return anatomy.fingerprint(self.tree)

    # text to ids

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """The ids of `text`; nothing is put before or after it.

        specials: whether a special token written out in the text becomes that token. Leave it False for text that
        users write.
        """
        if not specials and (len(text) >= BULK_FROM or self._table is not None):
            return self._encode_fast(_valid(text)).tolist()
        core = self._core if specials else self._plain_core
        return core.encode(_valid(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str], *, specials: bool = False) -> list[np.ndarray]:
        """The ids of each text, uint32: `encode` for much text. Uses one thread where it runs on tiktoken."""
        if not specials and (self._table is not None or self._bulk is not None):
            return [self._encode_fast(_valid(text)) for text in texts]
        core = self._core if specials else self._plain_core
        encoded = core.encode_batch_fast(list(map(_valid, texts)), add_special_tokens=False)
        return [np.array(e.ids, np.uint32) for e in encoded]

    def _encode_fast(self, text: str) -> np.ndarray:
        if self._table is not None:
            if self.kind == "bytes":
                return self._table[np.frombuffer(text.encode(), np.uint8)]
            points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
            return self._table[np.minimum(points, len(self._table) - 1)]
        if self._bulk is not None:
            return self._bulk.encode(text)
        return np.array(self._plain_core.encode(text, add_special_tokens=False).ids, np.uint32)

    # ids to text

    def decode(self, ids: Iterable[int], *, skip_specials: bool = True) -> str:
        """The text of `ids`. Bytes that are not valid UTF-8 become U+FFFD."""
        ids = [self._known(i) for i in ids]
        if self.byte_level or self.kind == "chars":
            hidden = self._special_ids if skip_specials else ()
            return b"".join(self._bytes[i] for i in ids if i not in hidden).decode("utf-8", "replace")
        return self._core.decode(ids, skip_special_tokens=skip_specials)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, special tokens written out. Exact where `byte_level`; elsewhere a token's spacing may
        depend on its neighbours, which only `decode` knows."""
        return b"".join(self._bytes[self._known(i)] for i in ids)

    def visible_bytes(self, i: int) -> bytes:
        """The bytes the token adds to what `decode` says, where `byte_level`: none, if it is a special one."""
        return b"" if i in self._special_ids else self._bytes[self._known(i)]

    def token(self, i: int) -> str:
        """The token as tokenizer.json writes it: a space is Ġ in byte-level vocabularies, ▁ in SentencePiece's."""
        return self._tokens[self._known(i)]

    def token_bytes(self, i: int) -> bytes:
        """The bytes the token stands for."""
        return self._bytes[self._known(i)]

    def _known(self, i: int) -> int:
        i = int(i)
        if not 0 <= i < self.vocab_size:
            raise RequestError(f"token id {i} is outside the vocabulary: 0 to {self.vocab_size - 1}")
        return i

    # files

    def save(self, directory: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja where there is one, as transformers reads
        them."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        roles = {"bos": self.bos_id, "eos": self.eos_id, "pad": self.pad_id, "unk": self.unk_id, "mask": self.mask_id}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **{f"{role}_token": self._tokens[i] for role, i in roles.items() if i is not None},
            **self.config,
        }
        if isinstance(config.get("chat_template"), str):
            (directory / "chat_template.jinja").write_text(config.pop("chat_template"), encoding="utf-8")
        for name, content in (("tokenizer.json", self.tree), ("tokenizer_config.json", config)):
            text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
            (directory / name).write_text(text, encoding="utf-8")

    # parts, made when first needed

    @cached_property
    def _bytes(self) -> list[bytes]:
        return anatomy.token_bytes(self.tree)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.special_tokens.values())

    @cached_property
    def _core(self):
        return _library(self.tree)

    @cached_property
    def _plain_core(self):
        core = _library(anatomy.without_specials(self.tree))
        core.encode_special_tokens = True
        return core

    @cached_property
    def _bulk(self):
        return bulk.build(self.tree, lambda text: self._plain_core.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _table(self) -> np.ndarray | None:
        """chars: id by code point, the last entry for all beyond; bytes: id by byte; None for the other kinds."""
        plain = not any(self.tree.get(part) for part in ("normalizer", "pre_tokenizer"))
        ordinary = [token for token in self.tree.get("added_tokens", []) if not token.get("special")]
        vocabulary = {t: i for t, i in anatomy.model_vocabulary(self.tree).items() if t not in self.special_tokens}
        if self.kind == "bytes" and not self.tree.get("normalizer") and not ordinary and len(vocabulary) == 256:
            steps = anatomy.components(self.tree["pre_tokenizer"])
            if len(steps) == 1 and not steps[0].get("add_prefix_space", True):
                order = sorted(vocabulary, key=lambda token: self._bytes[vocabulary[token]])
                return np.array([vocabulary[token] for token in order], np.uint32)
        if self.kind == "chars" and plain and not ordinary and self.unk_id is not None and max(map(len, vocabulary)) == 1:
            table = np.full(max(map(ord, vocabulary)) + 2, self.unk_id, np.uint32)
            table[[ord(c) for c in vocabulary]] = list(vocabulary.values())
            return table
        return None


def _library(tree: dict):
    from tokenizers import Tokenizer as Library

    return Library.from_str(json.dumps({**tree, "truncation": None, "padding": None}, ensure_ascii=False))


def _valid(text: str) -> str:
    """`text`, its unpaired surrogates (which UTF-8 cannot write) replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
