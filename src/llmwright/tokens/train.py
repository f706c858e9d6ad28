"""Train a tokenizer on text: byte-level BPE, Unigram, WordPiece, characters or bytes.

The three that learn subwords cut the text the same way first (bulk.PATTERN) and write it in the byte-level alphabet, so
they lose nothing, know every text, and differ in one thing only, how the vocabulary is chosen and applied:

bpe        merge the most frequent pair again and again (Sennrich et al. 2016); byte-level as in GPT-2
unigram    of many pieces keep those that make the text most likely (Kudo 2018); the likeliest cut is taken
wordpiece  a vocabulary of merges, applied by longest match from the left (BERT, Devlin et al. 2019); a piece that
           goes on inside a word is marked by ▁ in front, a character the byte-level alphabet does not have
chars      every character of the training text is a token; others are <|unk|>
bytes      256 tokens, one a byte: id = byte
"""

from collections.abc import Iterable, Iterator

from ..errors import RequestError
from ..progress import Progress
from . import bytelevel
from .bulk import TRAINED
from .tokenizer import Tokenizer

END = "<|endoftext|>"  # begins and ends a document
PAD = "<|pad|>"
UNKNOWN = "<|unk|>"  # chars only: the other kinds know every text
MASK = "<|mask|>"  # stands for a token to be guessed
SENTINEL = "<extra_id_{}>"  # stands for a span to be written (T5's names and places)
KINDS = ("bpe", "unigram", "wordpiece", "chars", "bytes")
SMALLEST, LARGEST = 256, 262_144
CONTINUES = "▁"
WORD_CHARS = 64  # wordpiece looks for the longest match from each place, so long words are cut before it


def train(texts: Iterable[str], kind: str = "bpe", vocab_size: int = 4096, progress: Progress = Progress(),
          specials: Iterable[str] = (), *, pattern: str = "llmwright", mask: bool = False, sentinels: int = 0,
          closed: bool = False) -> Tokenizer:
    """Train on `texts`, read once.

    vocab_size: tokens in all, special ones included; chars and bytes take what there is and ignore it.
    specials: special tokens beside <|endoftext|> and <|pad|>, for example a chat format's.
    pattern: how bpe cuts the text first: our own way, or one of bulk.TRAINED that other tools know by name.
    mask: whether there is a mask token. sentinels: how many <extra_id_0>, … there are; as in T5 the first has the
    highest id of all, and so on downwards.
    closed: <|endoftext|> goes behind a text, as an encoder-decoder reads it, and not in front.

    Raises RequestError where the text is empty, or does not support so large a vocabulary.
    """
    if kind not in KINDS:
        raise RequestError(f"tokenizer.kind: {kind!r} is not known: {', '.join(KINDS)}")
    if kind not in ("chars", "bytes") and not SMALLEST <= vocab_size <= LARGEST:
        raise RequestError(f"tokenizer.vocab_size: {vocab_size} is not allowed: {SMALLEST} to {LARGEST}")
    if pattern not in TRAINED:
        raise RequestError(f"tokenizer.pattern: {pattern!r} is not known: {', '.join(TRAINED)}")
    if pattern != "llmwright" and kind != "bpe":
        raise RequestError(f"tokenizer.pattern: {pattern!r} is a way to cut text for kind bpe; this is {kind}")
    own = [END, PAD, *([UNKNOWN] if kind == "chars" else []), *([MASK] if mask else [])]
    special = list(dict.fromkeys([*own, *specials]))
    if kind == "bytes":
        return _finish(_bytes_tree(), special, 256, sentinels, closed)
    counted = _Counted(texts, progress)
    if kind == "chars":
        characters = sorted(set().union(*map(set, counted)))
        counted.check()
        return _finish(_chars_tree(special, characters), special, 0, sentinels, closed)
    tree = _learn(kind, vocab_size - sentinels, special, counted, pattern)
    counted.check()
    size = len(tree["model"]["vocab"]) + sentinels
    if size < vocab_size:
        advice = (f"ask for tokenizer.vocab_size={size} (prepare: --vocab-size {size}) or fewer, or give more text" if size >= SMALLEST
                  else f"fewer than the {SMALLEST} a vocabulary needs: give more text")
        raise RequestError(f"tokenizer.vocab_size: {vocab_size} is more than the training text supports: its "
                           f"{counted.bytes:,} bytes give {size} tokens; {advice}")
    return _finish(tree, special, 0, sentinels, closed)


class _Counted:
    """The texts, with their bytes counted for the progress bar."""

    def __init__(self, texts: Iterable[str], progress: Progress):
        self.texts, self.progress, self.bytes = texts, progress, 0

    def __iter__(self) -> Iterator[str]:
        with self.progress.task("reading text for the tokenizer", unit="B") as task:
            for text in self.texts:
                n = len(text.encode("utf-8", "replace"))
                self.bytes += n
                task.advance(n)
                if n:
                    yield text.encode("utf-8", "replace").decode()

    def check(self) -> None:
        if not self.bytes:
            raise RequestError("the training text of the tokenizer is empty: there is nothing to learn from")


def _learn(kind: str, vocab_size: int, special: list[str], texts: Iterable[str], pattern: str) -> dict:
    """The tree of a trained subword tokenizer."""
    import json

    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Library

    whole = pattern == "gpt-2"  # its pattern is part of the step ByteLevel
    cuts = [] if whole else [pre_tokenizers.Split(Regex(TRAINED[pattern]), "isolated")]
    if kind == "wordpiece":
        cuts.append(pre_tokenizers.Split(Regex(f"(?m:.{{1,{WORD_CHARS}}})"), "isolated"))
    cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=whole))
    alphabet = [bytelevel.CHARACTER[byte] for byte in bytelevel.UTF8_BYTES]
    common = {"show_progress": False, "special_tokens": special, "initial_alphabet": alphabet}
    if kind == "wordpiece":
        # The trainer takes single continuations as it meets them, in the order of a hash map that changes from run to
        # run. Given as special tokens, they are all there from the start, in this order; `_finish` drops that flag.
        common["special_tokens"] = special + [CONTINUES + character for character in alphabet]
        common["initial_alphabet"] = [bytelevel.CHARACTER[byte] for byte in bytelevel.UTF8_LEADS]
    missing = len(common["special_tokens"]) + len(common["initial_alphabet"])
    if vocab_size < missing:
        raise RequestError(f"tokenizer.vocab_size: {vocab_size} is too small for {kind} with {len(special)} special "
                           f"tokens: single bytes alone need {missing}")
    if kind == "bpe":
        core = Library(models.BPE())
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, **common)
    elif kind == "unigram":
        core = Library(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=vocab_size, **common)
    else:
        core = Library(models.WordPiece(unk_token=UNKNOWN, max_input_chars_per_word=4 * WORD_CHARS))
        trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, continuing_subword_prefix=CONTINUES, **common)
    core.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    core.train_from_iterator(iter(texts), trainer)
    tree = json.loads(core.to_str())
    if kind == "wordpiece":
        tree["model"]["continuing_subword_prefix"] = CONTINUES
    if pattern == "llama-bpe":  # as Llama 3's tokenizer: a piece that is a token is taken whole
        tree["model"]["ignore_merges"] = True
    return tree


def _bytes_tree() -> dict:
    vocab = {bytelevel.CHARACTER[byte]: byte for byte in range(256)}
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"pre_tokenizer": step, "model": _merge_nothing(vocab, None)}


def _chars_tree(special: list[str], characters: list[str]) -> dict:
    vocab = {token: i for i, token in enumerate([*special, *characters])}
    return {"pre_tokenizer": None, "model": _merge_nothing(vocab, UNKNOWN)}


def _merge_nothing(vocab: dict[str, int], unknown: str | None) -> dict:
    return {"type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": []}


def _finish(tree: dict, special: list[str], at: int, sentinels: int, closed: bool) -> Tokenizer:
    """Add what is the same for all kinds: special tokens from id `at`, sentinels at the vocabulary's end, the decoder, and
    where another tool encodes a text for the model <|endoftext|> in front, as every document in training has it, or
    behind (`closed`)."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    end = {"SpecialToken": {"id": END, "type_id": 0}}
    one, two = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    fuse = {"type": "Fuse"}
    model = tree["model"]
    ids = {token: at + i for i, token in enumerate(special)}
    size = max(len(model["vocab"]), at + len(special))
    ids |= {SENTINEL.format(i): size + sentinels - 1 - i for i in reversed(range(sentinels))}
    if model["type"] == "WordPiece":
        unmark = {"type": "Replace", "pattern": {"String": CONTINUES}, "content": ""}
        decoder = {"type": "Sequence", "decoders": [unmark, byte_level]}
    else:
        decoder = byte_level if tree["pre_tokenizer"] else fuse
    full = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **flags, **_space(token, tree)} for token, i in ids.items()],
        "normalizer": None,
        "pre_tokenizer": tree["pre_tokenizer"],
        "post_processor": {"type": "TemplateProcessing", "single": [one, end] if closed else [end, one],
                           "pair": [one, two, end] if closed else [end, one, two],
                           "special_tokens": {END: {"id": END, "ids": [ids[END]], "tokens": [END]}}},
        "decoder": decoder,
        "model": model,
    }
    config = {"bos_token": END, "eos_token": END, "pad_token": PAD}
    config |= {role: token for role, token in (("unk_token", UNKNOWN), ("mask_token", MASK)) if token in special}
    return Tokenizer(full, config)


def _space(token: str, tree: dict) -> dict:
    """In the kinds whose words hold the space before them a mask stands for that space too (as RoBERTa's does)."""
    merged = tree["model"]["type"] != "BPE" or tree["model"]["merges"]
    return {"lstrip": True} if token == MASK and merged else {}
