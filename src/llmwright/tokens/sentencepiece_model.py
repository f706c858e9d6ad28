"""A SentencePiece .model (Kudo & Richardson 2018), Unigram or BPE, as the content of a tokenizer.json.

The file is a protobuf: pieces with scores and types, and how text is normalized. Three things need care:

- SentencePiece never finds a control piece (`</s>`) or an unused piece in text; they become special tokens here.
- Its BPE has no list of merges. It joins the neighbours whose joined piece has the best score, so the list is every way
  to write a piece as two others, by falling score; byte and control pieces are not joined from parts.
- A piece crosses no word border unless the vocabulary holds a ▁ inside a piece (Llama's runs of spaces); where it does
  not, cutting at words first gives the same result faster.
"""

import base64
from pathlib import Path

from ..errors import RequestError
from .anatomy import SPACE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2
LONGEST = 4_096  # characters of a piece; each has as many ways to be written as two


def read(path: Path) -> tuple[dict, dict]:
    """(tokenizer.json content, tokenizer_config.json content)."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise RequestError(f"{path}: reading a SentencePiece model needs: pip install sentencepiece protobuf") from None
    from google.protobuf.message import DecodeError

    try:
        proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    except DecodeError:
        raise RequestError(f"{path}: not a SentencePiece model, or damaged") from None
    return _content(path, proto)


def assemble(path: Path, pieces: list[tuple[str, float, int]], ids: dict[str, int | None], *, space_prefix: bool,
             strip_spaces: bool) -> tuple[dict, dict]:
    """`read` for a BPE model that `path` keeps as its parts (GGUF, llama2.c): (text, score, type) by id, and the ids of
    bos, eos, pad and unk."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    for text, score, kind in pieces:
        proto.pieces.add(piece=text, score=score, type=kind)
    spec = proto.trainer_spec
    spec.model_type, spec.byte_fallback = BPE, any(kind == BYTE for *_, kind in pieces)
    for role in ("unk", "bos", "eos", "pad"):
        setattr(spec, f"{role}_id", -1 if ids[role] is None else ids[role])
    proto.normalizer_spec.add_dummy_prefix = space_prefix
    proto.normalizer_spec.remove_extra_whitespaces = strip_spaces
    return _content(path, proto)


def _content(path: Path, proto) -> tuple[dict, dict]:
    if not proto.pieces or not any(piece.type == UNKNOWN for piece in proto.pieces):
        raise RequestError(f"{path}: not a SentencePiece model, or damaged: no vocabulary in it")
    spec = proto.trainer_spec
    if spec.model_type not in (UNIGRAM, BPE):
        raise RequestError(f"{path}: a SentencePiece {spec.ModelType.Name(spec.model_type).lower()} model; "
                           "only unigram and bpe are read")
    if spec.treat_whitespace_as_suffix:
        raise RequestError(f"{path}: a SentencePiece model with treat_whitespace_as_suffix, which is not read")
    pieces = [piece.piece for piece in proto.pieces]
    if (longest := max(map(len, pieces))) > LONGEST:
        raise RequestError(f"{path}: a piece of {longest:,} characters; pieces have at most {LONGEST:,}")
    ids = {role: _position(pieces, getattr(spec, f"{role}_id")) for role in ("unk", "bos", "eos", "pad")}
    ids["unk"] = next(i for i, piece in enumerate(proto.pieces) if piece.type == UNKNOWN)
    if ids["pad"] is None and "<pad>" in pieces:
        ids["pad"] = pieces.index("<pad>")
    words = not any(SPACE in piece[1:] for piece in pieces)
    tree = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, piece) for i, piece in enumerate(proto.pieces)
                         if piece.type in (UNKNOWN, CONTROL, USER_DEFINED, UNUSED)],
        **_spaces(proto.normalizer_spec, words),
        "post_processor": _template(pieces, ids),
        "model": _unigram(proto, ids["unk"]) if spec.model_type == UNIGRAM else _bpe(proto, pieces, ids["unk"]),
    }
    return tree, {f"{role}_token": pieces[i] for role, i in ids.items() if i is not None}


def _position(pieces: list[str], i: int) -> int | None:
    return i if 0 <= i < len(pieces) else None


def _added(i: int, piece) -> dict:
    return {"id": i, "content": piece.piece, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": piece.type != USER_DEFINED}


def _spaces(spec, words: bool) -> dict:
    """normalizer, pre_tokenizer and decoder: how SentencePiece treats spaces."""
    steps = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    undo = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}]
    if spec.add_dummy_prefix:
        undo.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    cut = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": True}
    return {"normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": cut if words else None,
            "decoder": {"type": "Sequence", "decoders": undo}}


def _template(pieces: list[str], ids: dict[str, int | None]) -> dict | None:
    """What the model's own family puts around a text: <s> before it if there is one (Llama), else </s> after (T5)."""
    role = "bos" if ids["bos"] is not None else "eos"
    if ids[role] is None:
        return None
    token = pieces[ids[role]]
    mark = {"SpecialToken": {"id": token, "type_id": 0}}
    one, two = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    single, pair = ([mark, one], [mark, one, mark, two]) if role == "bos" else ([one, mark], [one, mark, two, mark])
    return {"type": "TemplateProcessing", "single": single, "pair": pair,
            "special_tokens": {token: {"id": token, "ids": [ids[role]], "tokens": [token]}}}


def _unigram(proto, unk: int) -> dict:
    return {"type": "Unigram", "unk_id": unk, "vocab": [[piece.piece, piece.score] for piece in proto.pieces],
            "byte_fallback": proto.trainer_spec.byte_fallback}


def _bpe(proto, pieces: list[str], unk: int) -> dict:
    score = {piece.piece: piece.score for piece in proto.pieces if piece.type in (NORMAL, USER_DEFINED)}
    place = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for piece in score:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in score and right in score:
                merges.append((-score[piece], place[piece], place[left], place[right], left, right))
    merges.sort()
    return {"type": "BPE", "dropout": None, "unk_token": pieces[unk], "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": proto.trainer_spec.byte_fallback,
            "ignore_merges": False, "vocab": place, "merges": [[left, right] for *_, left, right in merges]}
