"""Load a tokenizer from whatever holds one."""

from pathlib import Path

from ..errors import RequestError
from . import chat_template, marian_files, published, sentencepiece_model
from .tokenizer import Tokenizer

# In a directory, the first of these that is there.
NAMES = ("tokenizer.json", "tokenizer/tokenizer.json", "tokenizer.model", "sentencepiece.model", "spiece.model",
         "source.spm", "vocab.bpe", "merges.txt", "vocab.txt")
READS = ("tokenizer.json, vocab.bpe with encoder.json, merges.txt with vocab.json, vocab.txt, a SentencePiece .model or "
         "source.spm with vocab.json")


def load(path: str | Path) -> Tokenizer:
    """The tokenizer at `path`.

    path: a tokenizer.json; a model or data directory; GPT-2's vocab.bpe or encoder.json (merges.txt or vocab.json),
    the other one beside it; BERT's vocab.txt; a SentencePiece .model, Unigram or BPE; Marian's source.spm with vocab.json.

    Raises RequestError, one line, if there is none or it cannot be read.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise RequestError(f"{path}: no such tokenizer")
    if path.is_dir():
        found = next((path / name for name in NAMES if (path / name).is_file()), None)
        if found is None:
            raise RequestError(f"{path}: no tokenizer in this directory; looked for {', '.join(NAMES)}")
        path = found
    tree, config = _read(path)
    try:
        tokenizer = Tokenizer(tree, chat_template.beside(path.parent, config))
        _ = tokenizer._plain_core  # the library's own check of the content
        return tokenizer
    except RequestError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise RequestError(f"{path}: not a tokenizer the tokenizers library can read: {error}") from None


def _read(path: Path) -> tuple[dict, dict]:
    for merges, vocabulary in published.GPT2_NAMES.items():
        if path.name in (merges, vocabulary):
            pair = path.with_name(merges), path.with_name(vocabulary)
            missing = next((part for part in pair if not part.is_file()), None)
            if missing:
                raise RequestError(f"{path}: needs {missing.name} beside it")
            return published.read_gpt2(*pair)
    if path.suffix in (".model", ".spm"):
        try:
            return (marian_files if path.suffix == ".spm" else sentencepiece_model).read(path)
        except OSError as error:
            raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    if path.suffix == ".txt":
        return published.read_bert(path)
    if path.suffix != ".json":
        raise RequestError(f"{path}: not a tokenizer file; give a {READS}")
    tree = published.read_json(path)
    model = tree.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise RequestError(f"{path}: not a tokenizer.json: it has no model.vocab; give a {READS}")
    if "type" not in model:  # older files leave it out
        guess = "Unigram" if isinstance(model["vocab"], list) else "BPE" if "merges" in model else "WordPiece"
        tree = {**tree, "model": {**model, "type": guess}}
    config = path.with_name("tokenizer_config.json")
    return tree, published.read_json(config) if config.is_file() else {}
