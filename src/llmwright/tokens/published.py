"""Older published vocabularies as the content of a tokenizer.json: GPT-2's two files and BERT's vocab.txt."""

import json
from pathlib import Path

from ..errors import RequestError
from . import bytelevel

GPT2_NAMES = {"vocab.bpe": "encoder.json", "merges.txt": "vocab.json"}  # merges: vocabulary


def read_gpt2(merges_path: Path, vocabulary_path: Path) -> tuple[dict, dict]:
    """GPT-2's byte-level BPE (Radford et al. 2019): a list of merges and a JSON object of token: id."""
    vocabulary = read_json(vocabulary_path)
    if not vocabulary or not all(isinstance(i, int) for i in vocabulary.values()):
        raise RequestError(f"{vocabulary_path}: not a vocabulary: it should be a JSON object of token: id")
    missing = set(map(bytelevel.CHARACTER.get, bytelevel.UTF8_BYTES)) - vocabulary.keys()
    if missing:
        raise RequestError(f"{vocabulary_path}: not a byte-level vocabulary: {len(missing)} of the single bytes are "
                           "not in it")
    lines = read_text(merges_path).splitlines()
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    merges = []
    for number, line in enumerate(filter(None, lines), 1):
        pair = line.split(" ")
        if len(pair) != 2 or "".join(pair) not in vocabulary:
            raise RequestError(f"{merges_path}: merge {number}, {line[:40]!r}, is not two tokens that "
                               f"{vocabulary_path.name} joins")
        merges.append(pair)
    end = "<|endoftext|>"
    named = {"bos_token": end, "eos_token": end} if end in vocabulary else {}
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": vocabulary, "merges": merges}
    special = [_special(end, vocabulary[end])] if named else []
    return _tree(special, None, step, None, step, model), named


def read_bert(path: Path) -> tuple[dict, dict]:
    """BERT's WordPiece (Devlin et al. 2019): one token a line. Lower-cases if no token has a capital letter."""
    tokens = read_text(path).split("\n")
    tokens = [token.rstrip("\r") for token in (tokens[:-1] if tokens[-1] == "" else tokens)]
    if "[UNK]" not in tokens:
        raise RequestError(f"{path}: not a BERT vocabulary: it has no line [UNK]")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    names = {"unk": "[UNK]", "bos": "[CLS]", "eos": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]",
             "mask": "[MASK]"}
    named = {f"{role}_token": name for role, name in names.items() if name in vocabulary}
    lower = not any(token != token.lower() for token in tokens if not token.startswith("["))
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                  "lowercase": lower}
    around = None
    if {"cls_token", "sep_token"} <= named.keys():
        first, a, end = _mark("[CLS]", 0), {"Sequence": {"id": "A", "type_id": 0}}, _mark("[SEP]", 0)
        b, end_b = {"Sequence": {"id": "B", "type_id": 1}}, _mark("[SEP]", 1)
        around = {"type": "TemplateProcessing", "single": [first, a, end], "pair": [first, a, end, b, end_b],
                  "special_tokens": {t: {"id": t, "ids": [vocabulary[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")}}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100, "vocab": vocabulary}
    special = sorted((_special(t, vocabulary[t]) for t in set(named.values())), key=lambda token: token["id"])
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    return _tree(special, normalizer, {"type": "BertPreTokenizer"}, around, decoder, model), named


def read_text(path: Path) -> str:
    """The file as UTF-8 text; RequestError if it cannot be read as that."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError(f"{path}: not a tokenizer file: not UTF-8 text") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None


def read_json(path: Path) -> dict:
    """The file as a JSON object; RequestError if it is cut short or something else."""
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise RequestError(f"{path}: not valid JSON (cut short or damaged?): {error}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{path}: not a tokenizer file: a JSON {type(content).__name__}, not an object")
    return content


def _tree(added, normalizer, pre_tokenizer, post_processor, decoder, model) -> dict:
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder, "model": model}


def _special(content: str, i: int) -> dict:
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True}


def _mark(token: str, type_id: int) -> dict:
    return {"SpecialToken": {"id": token, "type_id": type_id}}
