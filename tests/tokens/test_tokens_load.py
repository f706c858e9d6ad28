"""Published tokenizers load with the ids of the library each comes from; a file that is none is named."""

import json
import shutil

import pytest

from llmwright.errors import RequestError
from llmwright.tokens.load import load

MIXED = ["", " ", "Hello world", "  two  spaces ", "naïve café №5 ½ ﬁ", "日本語のテキスト", "😀👩‍👩‍👧", "tab\tnew\nline\r\n", "don't I'LL we've",
         "x" * 300, "</s><s><unk><pad>[CLS][SEP]<0x0A><|endoftext|>", "ＦＵＬＬ width", "▁already▁there", "a\u0301 e\u0301", "3.14159 1e-10"]


@pytest.fixture(scope="module")
def real(shared) -> list[str]:
    """Web pages, encyclopedia, German, code."""
    import gzip
    import inspect

    web = [json.loads(line)["text"] for line in shared("pretrain_demo/c4_demo.jsonl").open(encoding="utf-8")]
    wiki = shared("wikitext-2-raw/wiki.test.raw").read_text(encoding="utf-8")[:300_000].split("\n")
    with gzip.open(shared("multi30k/test_2016_flickr.de.gz"), "rt", encoding="utf-8") as file:
        german = file.read().splitlines()
    return [*web[:150], *wiki, *german[:400], *inspect.getsource(shutil).split("\n"), *MIXED]


@pytest.mark.parametrize("name", ["t5_tokenizer/sentencepiece.model", "llama_tokenizer/tokenizer.model"])
def test_sentencepiece_models_give_the_ids_and_text_of_sentencepiece(shared, real, name):
    import sentencepiece

    tokenizer, peer = load(shared(name)), sentencepiece.SentencePieceProcessor(model_file=str(shared(name)))
    assert tokenizer.vocab_size == peer.vocab_size()
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (
        peer.bos_id() if peer.bos_id() >= 0 else None, peer.eos_id(), peer.unk_id())
    expected = peer.encode(real)
    assert [ids.tolist() for ids in tokenizer.encode_batch(real)] == expected
    for text, ids in zip(MIXED, peer.encode(MIXED), strict=True):
        assert tokenizer.encode(text) == ids
    for ids in expected:
        if peer.unk_id() not in ids:
            assert tokenizer.decode(ids) == peer.decode(ids)


def test_a_long_text_is_cut_at_least_as_likely_as_by_sentencepiece(shared, real):
    """sentencepiece sums the scores of a whole text in float32: past some 10,000 characters its sums are too coarse to
    tell near cuts apart, and it may take the worse one. tokenizers sums in float64, so only here may ids differ."""
    import sentencepiece

    name = shared("t5_tokenizer/sentencepiece.model")
    tokenizer, peer = load(name), sentencepiece.SentencePieceProcessor(model_file=str(name))
    score = [score for _, score in tokenizer.tree["model"]["vocab"]]
    assert score[:100] == pytest.approx([peer.get_score(i) for i in range(100)])
    text = "\n".join(real)[:60_000]
    ours, theirs = tokenizer.encode(text), peer.encode(text)
    assert sum(score[i] for i in ours) >= sum(score[i] for i in theirs) - 1e-6
    assert len(ours) == pytest.approx(len(theirs), rel=1e-3)


def test_gpt2_files_give_the_ids_of_tiktoken(shared, real):
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    merges, vocabulary = shared("gpt2_vocab/vocab.bpe"), shared("gpt2_vocab/encoder.json")
    ranks = data_gym_to_mergeable_bpe_ranks(str(merges), str(vocabulary))
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"  # as OpenAI writes it
    peer = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    for path in (merges, vocabulary, merges.parent):
        tokenizer = load(path)
        assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (50257, 50256, 50256)
        assert tokenizer.encode("Hello world") == [15496, 995]
    for text, ids in zip(real, tokenizer.encode_batch(real), strict=True):
        expected = peer.encode_ordinary(text)
        assert ids.tolist() == expected
        assert tokenizer.encode(text) == expected
        assert tokenizer.decode(expected) == text


def test_bert_vocabulary_gives_the_ids_of_transformers(shared, real):
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy  # the one in plain Python

    path = shared("bert_vocab/vocab.txt")
    tokenizer, peer = load(path), BertTokenizerLegacy(str(path), do_lower_case=True)
    plain = [text for text in real[::4] if "[" not in text]  # there, [SEP] in a text becomes the special token
    assert tokenizer.vocab_size == 30522
    for text, ids in zip(plain, tokenizer.encode_batch(plain), strict=True):
        assert ids.tolist() == peer.convert_tokens_to_ids(peer.tokenize(text))


@pytest.mark.parametrize("name", ["t5_tokenizer/sentencepiece.model", "llama_tokenizer/tokenizer.model",
                                  "gpt2_vocab/vocab.bpe", "bert_vocab/vocab.txt"])
def test_user_text_never_becomes_a_published_special_token(shared, name):
    tokenizer = load(shared(name))
    special = set(tokenizer.special_tokens.values()) - {tokenizer.unk_id}
    for token, i in tokenizer.special_tokens.items():
        for text in (token, f"a {token} b", f"x{token}{token}y", (token + " ") * 400):
            assert not special & set(tokenizer.encode(text))
            assert not special & set(tokenizer.encode_batch([text])[0].tolist())
        assert i in tokenizer.encode(f"a {token} b", specials=True)
        assert i in tokenizer.encode_batch([f"a {token} b"], specials=True)[0]


@pytest.mark.parametrize("name", ["t5_tokenizer/sentencepiece.model", "llama_tokenizer/tokenizer.model",
                                  "gpt2_vocab/vocab.bpe", "bert_vocab/vocab.txt"])
def test_published_tokenizers_save_as_transformers_reads_them(shared, name, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = load(shared(name))
    tokenizer.save(tmp_path)
    peer = AutoTokenizer.from_pretrained(tmp_path)
    for text in MIXED:
        assert peer(text, add_special_tokens=False).input_ids == tokenizer.encode(text, specials=True)
    again = load(tmp_path)
    assert (again.fingerprint, again.bos_id, again.eos_id, again.pad_id, again.unk_id) == (
        tokenizer.fingerprint, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id)


def test_tokenizer_config_names_the_roles(trained, tmp_path):
    trained["bpe"].save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = {**json.loads(path.read_text()), "eos_token": {"content": "<|pad|>", "special": True}, "chat_template": "x"}
    path.write_text(json.dumps(config))
    tokenizer = load(tmp_path)
    assert tokenizer.eos_id == trained["bpe"].pad_id
    tokenizer.save(tmp_path / "again")
    assert (tmp_path / "again" / "chat_template.jinja").read_text() == load(tmp_path / "again").config["chat_template"] == "x"
    path.write_text(json.dumps({**config, "eos_token": "<|nowhere|>"}))
    with pytest.raises(RequestError, match=r"eos_token '<\|nowhere\|>' is not in the vocabulary"):
        load(tmp_path)


def test_tokenizer_json_without_specials_beside_it_still_reads(trained, tmp_path):
    trained["bpe"].save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = load(tmp_path / "tokenizer.json")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 0, 1)


def _write(path, content) -> None:
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("tokenizer.json", '{"model": {"vocab": {"a": 0', "not valid JSON"),
    ("tokenizer.json", "", "not valid JSON"),
    ("tokenizer.json", "[1, 2]", "a JSON list, not an object"),
    ("tokenizer.json", '{"hello": 1}', "no model.vocab"),
    ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "z"]]}}', "cannot|not a tokenizer"),
    ("tokenizer.json", '{"model": {"type": "Magic", "vocab": {"a": 0}}}', "not a tokenizer"),
    ("tokenizer.json", '{"model": {"type": "BPE", "vocab": 3, "merges": []}}', "not a tokenizer"),
    ("tokenizer.json", b"\xff\xfe\x00", "not UTF-8"),
    ("m.model", b"not a protobuf at all", "not a SentencePiece model"),
    ("m.model", b"", "not a SentencePiece model"),
    ("vocab.txt", "hello\nworld\n", r"no line \[UNK\]"),
    ("vocab.bpe", "a b\n", "needs encoder.json beside it"),
    ("weights.bin", b"\x00", "not a tokenizer file"),
])
def test_a_file_that_is_no_tokenizer_is_named_in_one_line(tmp_path, name, content, message):
    _write(tmp_path / name, content)
    with pytest.raises(RequestError, match=message) as caught:
        load(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_gpt2_files_that_do_not_fit_are_named(trained, tmp_path):
    vocabulary = {t: i for i, t in enumerate(sorted(trained["bytes"].tree["model"]["vocab"]))}
    _write(tmp_path / "encoder.json", json.dumps(vocabulary))
    _write(tmp_path / "vocab.bpe", "#version: 0.2\na b\n")
    with pytest.raises(RequestError, match="vocab.bpe: merge 1, 'a b', is not two tokens"):
        load(tmp_path / "vocab.bpe")
    _write(tmp_path / "encoder.json", '{"a": 0}')
    with pytest.raises(RequestError, match="not a byte-level vocabulary"):
        load(tmp_path / "vocab.bpe")


def test_missing_paths_and_empty_directories_are_named(tmp_path):
    with pytest.raises(RequestError, match="nowhere: no such tokenizer"):
        load(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="no tokenizer in this directory"):
        load(tmp_path)
