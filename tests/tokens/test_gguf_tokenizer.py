"""A tokenizer in GGUF's words is the same tokenizer: for us, and for llama.cpp."""

import json
import sys
import unicodedata
from pathlib import Path

import pytest

from llmwright.errors import RequestError
from llmwright.tokens import gguf_tokenizer
from llmwright.tokens.gguf_pre_tokenizers import NAMES, PRE_TOKENIZERS, WHOLE_WORDS_FIRST
from llmwright.tokens.load import load
from llmwright.tokens.tokenizer import Tokenizer
from llmwright.tokens.train import train

sys.path.append(str(Path(__file__).parents[1] / "checkpoint"))
import gguf_case  # noqa: E402

TEXTS = ["", " ", "Hello world", "  two  spaces ", "naïve café №5 ½ ﬁ", "日本語のテキスト", "😀👩‍👩‍👧",
         "tab\tnew\nline\r\n", "don't I'LL we've", "x" * 300, "ＦＵＬＬ width", "▁already▁there", "a\u0301 e\u0301",
         "3.14159 1e-10", "a  b   c\n\n\n  d\n", "123456 1234 12", "foo()  {\n\treturn x_1 + y;\n}\n",
         "HelloWorld iPhone XMLHttp fooBAR", "!!!???...", "$a+b<c>d^e~f|g`h`", "  \n  \n",
         "\u00a0nbsp\u2028x", "v²³ ¼", "The quick brown fox's 12,345 jumps — over “lazy” dogs…"]
ENCODE = """
from llama_cpp import Llama
found = []
for path, texts in arguments[0]:
    model = Llama(path, vocab_only=True, verbose=False)
    found.append([model.tokenize(text.encode(), add_bos=False, special=False) for text in texts])
print(json.dumps(found))
"""


class Metadata:
    """As checkpoint.gguf_file has it."""

    path = "x.gguf"

    def __init__(self, values: dict):
        self.values = values

    def __contains__(self, key):
        return key in self.values

    def get(self, key, kind, default=None):
        assert isinstance(self.values.get(key, default), kind | None if default is None else kind)
        return self.values.get(key, default)


def read(values: dict) -> Tokenizer:
    return Tokenizer(*gguf_tokenizer.read(Metadata(values)))


def vocabulary_file(path: Path, values: dict) -> str:
    """A GGUF file with a tokenizer and no weights."""
    from gguf import GGUFWriter
    from llmwright.checkpoint.gguf_write import _entry

    writer = GGUFWriter(path, "llama")
    sizes = {"context_length": 32, "embedding_length": 32, "block_count": 1, "feed_forward_length": 32,
             "attention.head_count": 2, "attention.layer_norm_rms_epsilon": 1e-5}
    for key, value in ({f"llama.{key}": value for key, value in sizes.items()} | values).items():
        _entry(writer, key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return str(path)


@pytest.fixture(scope="module")
def everywhere(corpus) -> Tokenizer:
    """Trained on text that was not cut at all: its tokens reach over every kind of border, so a cut elsewhere shows."""
    from tokenizers import Tokenizer as Library, models, pre_tokenizers, trainers

    core = Library(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    lines = [line for text in corpus for line in text.splitlines(keepends=True)][:3000] + TEXTS * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(lines, trainer)
    return Tokenizer(json.loads(core.to_str()))


def test_every_way_to_cut_text_gives_llama_cpps_ids(everywhere, tmp_path):
    jobs, wanted = [], {}
    for name, *_ in PRE_TOKENIZERS:
        values = gguf_tokenizer.write(everywhere, everywhere.vocab_size, name)
        del values["tokenizer.huggingface.json"]
        tokenizer, texts = read(values), TEXTS
        if name in ("qwen2", "tekken"):  # their publishers compose accents first (NFC) or know them; llama.cpp does not
            texts = [unicodedata.normalize("NFC", text) for text in texts]
        if name == "falcon":  # its publisher cuts digits off the space before them; a vocabulary of its own hides that
            texts = [text for text in texts if text.isascii() and not any(c.isdigit() for c in text)]
            assert len(texts) > 5
        jobs.append((vocabulary_file(tmp_path / f"{name}.gguf", values), texts))
        wanted[name] = [tokenizer.encode(text) for text in texts]
    for (name, ours), theirs in zip(wanted.items(), gguf_case.llama_cpp(ENCODE, jobs)):
        assert ours == theirs, name
    assert len({str(ids) for ids in wanted.values()}) > 5  # the ways differ


def test_a_sentencepiece_tokenizer_gives_llama_cpps_ids(shared, tmp_path):
    tokenizer = load(shared("llama_tokenizer/tokenizer.model"))
    values = gguf_tokenizer.write(tokenizer, tokenizer.vocab_size)
    file = vocabulary_file(tmp_path / "x.gguf", values)
    assert gguf_case.llama_cpp(ENCODE, [(file, TEXTS)])[0] == [tokenizer.encode(text) for text in TEXTS]


@pytest.mark.parametrize("name", ["gpt2_vocab/vocab.bpe", "llama_tokenizer/tokenizer.model"])
def test_a_published_tokenizer_comes_back_the_same(shared, name):
    tokenizer = load(shared(name))
    again = read(gguf_tokenizer.write(tokenizer, tokenizer.vocab_size + 40))  # a model with spare rows
    assert again.vocab_size == tokenizer.vocab_size and again.special_tokens == tokenizer.special_tokens
    assert (again.bos_id, again.eos_id, again.pad_id, again.unk_id) == (
        tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert again.encode(text) == ids and again.decode(ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "bloom", "falcon"])
def test_a_name_is_found_for_what_it_names(pre):
    tree = gguf_case.tokenizer(pre).tree
    whole = pre in WHOLE_WORDS_FIRST
    tree = {**tree, "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
            "model": {**tree["model"], "ignore_merges": whole}}
    values = gguf_tokenizer.write(Tokenizer(tree), 420)
    assert values["tokenizer.ggml.pre"] == pre and "tokenizer.huggingface.json" not in values


def test_what_llama_cpp_cannot_cut_is_refused_unless_another_way_is_accepted(trained):
    ours = trained["bpe"]  # its pattern is our own
    with pytest.raises(RequestError, match="--pre llama-bpe"):
        gguf_tokenizer.write(ours, ours.vocab_size)
    values = gguf_tokenizer.write(ours, ours.vocab_size, "llama-bpe")
    assert values["tokenizer.ggml.pre"] == "llama-bpe"
    again = read(values)  # here the file's own tokenizer.json is the truth
    assert again.fingerprint == ours.fingerprint and (again.bos_id, again.pad_id) == (ours.bos_id, ours.pad_id)


@pytest.fixture(scope="module")
def known(corpus):
    """Tokenizers trained with the patterns that llama.cpp knows."""
    return {pattern: train(corpus, "bpe", 2000, pattern=pattern) for pattern in ("gpt-2", "llama-bpe")}


def test_one_trained_for_llama_cpp_needs_no_other_way(known):
    for pattern, made in known.items():
        values = gguf_tokenizer.write(made, made.vocab_size)
        assert values["tokenizer.ggml.pre"] == pattern and "tokenizer.huggingface.json" not in values
        again = read(values)
        assert [again.encode(text) for text in TEXTS] == [made.encode(text) for text in TEXTS]
        assert [made.decode(made.encode(text)) for text in TEXTS] == TEXTS
        assert made._bulk is not None  # and it is as fast as the library for its pattern can be


def test_one_trained_for_llama_cpp_gives_llama_cpps_ids(known, tmp_path):
    jobs = [(vocabulary_file(tmp_path / f"{pattern}.gguf", gguf_tokenizer.write(made, made.vocab_size)), TEXTS)
            for pattern, made in known.items()]
    ours = [[made.encode(text) for text in TEXTS] for made in known.values()]
    assert gguf_case.llama_cpp(ENCODE, jobs) == ours and ours[0] != ours[1]


@pytest.mark.parametrize("kind", ["unigram", "wordpiece", "chars"])
def test_other_kinds_have_no_place(trained, kind):
    with pytest.raises(RequestError, match=kind):
        gguf_tokenizer.write(trained[kind], trained[kind].vocab_size)


def test_what_goes_around_a_text_is_kept():
    values = gguf_tokenizer.write(gguf_case.tokenizer(), 420)
    assert values["tokenizer.ggml.add_bos_token"] is True  # <|endoftext|> stands before every document in training
    values |= {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True}
    tree, config = gguf_tokenizer.read(Metadata(values))
    assert config["add_bos_token"] is False and config["add_eos_token"] is True
    assert [list(part) for part in tree["post_processor"]["single"]] == [["Sequence"], ["SpecialToken"]]


def test_special_tokens_in_user_text_stay_text():
    tokenizer = read(gguf_tokenizer.write(gguf_case.tokenizer(), 420))
    assert not set(tokenizer.encode("a <|endoftext|> b")) & set(tokenizer.special_tokens.values())
    assert tokenizer.bos_id in tokenizer.encode("a <|endoftext|> b", specials=True)


@pytest.mark.parametrize("change, said", [
    ({"model": "bert"}, "kind 'bert'"),
    ({"pre": "klingon"}, "'klingon'.*known: gpt-2"),
    ({"tokens": [1, 2]}, "not a list of texts"),
    ({"token_type": [1]}, "1 entries for 420 tokens"),
    ({"merges": ["a b", "no_such pair"]}, "merge"),
    ({"bos_token_id": 420}, "bos_token_id is 420; there are 420 tokens"),
])
def test_parts_that_do_not_fit_are_named(change, said):
    values = gguf_tokenizer.write(gguf_case.tokenizer(), 420)
    with pytest.raises(RequestError, match=said):
        read(values | {f"tokenizer.ggml.{key}": value for key, value in change.items()})


def test_a_token_outside_the_byte_level_alphabet_is_named():
    values = gguf_tokenizer.write(gguf_case.tokenizer(), 420)
    values["tokenizer.ggml.tokens"][300] = "a b"
    with pytest.raises(RequestError, match="'a b' is not written in the byte-level alphabet"):
        read(values | {"tokenizer.ggml.merges": values["tokenizer.ggml.merges"][:1]})


def test_no_name_stands_for_two_ways():
    assert len(NAMES) == sum(map(len, PRE_TOKENIZERS))
