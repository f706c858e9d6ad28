"""A published Marian tokenizer (the OPUS-MT models: Tiedemann & Thottingal 2020) as the content of a tokenizer.json.

It is two SentencePiece models, source.spm and target.spm, and vocab.json, which gives each piece of either its id: the
model has one table for both. The source's pieces keep their scores here, so that a source is cut as source.spm cuts it;
those of the target alone are there to be read back, and in a source only where nothing else says a character.
"""

from pathlib import Path

from ..errors import RequestError
from . import published, sentencepiece_model

END, UNKNOWN, PAD = "</s>", "<unk>", "<pad>"
LAST = -1e6  # the score of the target's own pieces, below every other


def read(path: Path) -> tuple[dict, dict]:
    """(tokenizer.json content, tokenizer_config.json content) of the source.spm at `path` and vocab.json beside it."""
    vocabulary_path = path.with_name("vocab.json")
    if not vocabulary_path.is_file():
        raise RequestError(f"{path}: needs vocab.json beside it, which gives the pieces their ids")
    if path.with_name("target_vocab.json").is_file():
        raise RequestError(f"{path}: a vocabulary of its own for the target (target_vocab.json), which is not read")
    vocabulary = published.read_json(vocabulary_path)
    pieces = sorted(vocabulary, key=lambda piece: str(vocabulary[piece]).zfill(12))
    if [vocabulary[piece] for piece in pieces] != list(range(len(pieces))) or not {END, UNKNOWN, PAD} <= vocabulary.keys():
        raise RequestError(f"{vocabulary_path}: not a Marian vocabulary: it should give ids from 0 on, {END}, {UNKNOWN} "
                           f"and {PAD} among them")
    tree, _ = sentencepiece_model.read(path)
    if tree["model"]["type"] != "Unigram":
        raise RequestError(f"{path}: a SentencePiece bpe model; Marian's unigram models are read")
    own = {token["content"] for token in tree["added_tokens"]}
    score = {piece: value for piece, value in tree["model"]["vocab"] if piece not in own}
    languages = [piece for piece in pieces if piece.startswith(">>") and piece.endswith("<<")]  # what to translate into
    end = {"SpecialToken": {"id": END, "type_id": 0}}
    one, two = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        **tree,
        "added_tokens": sorted(
            (_added(vocabulary[piece], piece, piece not in languages) for piece in (END, UNKNOWN, PAD, *languages)),
            key=lambda token: token["id"],
        ),
        "post_processor": {
            "type": "TemplateProcessing", "single": [one, end], "pair": [one, two, end],
            "special_tokens": {END: {"id": END, "ids": [vocabulary[END]], "tokens": [END]}},
        },
        "model": {"type": "Unigram", "unk_id": vocabulary[UNKNOWN], "byte_fallback": False,
                  "vocab": [[piece, score.get(piece, LAST)] for piece in pieces]},
    }, {"eos_token": END, "unk_token": UNKNOWN, "pad_token": PAD}


def _added(i: int, piece: str, special: bool) -> dict:
    return {"id": i, "content": piece, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": special}
