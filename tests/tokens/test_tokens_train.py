"""Trained tokenizers lose nothing, keep special tokens apart, and load elsewhere with the same ids."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright.errors import RequestError
from llmwright.tokens.load import load
from llmwright.tokens.train import KINDS, train

LOSSLESS = ("bpe", "unigram", "wordpiece", "bytes")
TEXT = "def f(x):\n    return 'naïve 中文 😀' + \"  a   b\"\t12345 <|endoftext|> ### ▁x\r\n"


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_encoding_loses_nothing(trained, text):
    for kind in LOSSLESS:
        ids = trained[kind].encode(text)
        assert trained[kind].decode(ids) == text
        assert trained[kind].decode_bytes(ids) == text.encode()
        assert trained[kind].unk_id is None


@pytest.mark.parametrize("kind", LOSSLESS)
def test_long_words_lose_nothing(trained, kind):
    text = "x" * 5000 + "日" * 3000 + " " * 1000 + "\U0010ffff" * 500 + "\n" * 100
    assert trained[kind].decode(trained[kind].encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_chars_is_one_token_a_character_and_unknown_ones_are_unk(trained, data):
    chars = trained["chars"]
    known = [token for token in chars.tree["model"]["vocab"] if token not in chars.special_tokens]
    text = data.draw(st.text(st.sampled_from(known)))
    ids = chars.encode(text)
    assert len(ids) == len(text) and chars.decode(ids) == text
    assert ids == chars._plain_core.encode(text, add_special_tokens=False).ids
    assert chars.encode(text + "\U0001f9ff!") == [*ids, chars.unk_id, chars.encode("!")[0]]


def test_bytes_ids_are_the_bytes(trained):
    assert trained["bytes"].encode(TEXT) == list(TEXT.encode())
    assert trained["bytes"]._plain_core.encode(TEXT, add_special_tokens=False).ids == list(TEXT.encode())


def test_single_texts_and_batches_give_the_same_ids(trained, corpus):
    texts = [TEXT, "", " ", "a" * 3000, *corpus[:2]]
    for tokenizer in trained.values():
        assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == [tokenizer.encode(text) for text in texts]
        assert all(ids.dtype == "uint32" for ids in tokenizer.encode_batch(texts))


def test_unpaired_surrogates_become_the_replacement_character(trained):
    for kind in LOSSLESS:
        assert trained[kind].decode(trained[kind].encode("a\ud800b")) == "a\ufffdb"
        assert trained[kind].encode_batch(["a\ud800b"])[0].tolist() == trained[kind].encode("a\ufffdb")


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(["<|endoftext|>", "<|pad|>", "<|unk|>", " "]), st.text(max_size=4))))
def test_user_text_never_becomes_a_special_token(trained, parts):
    text = "".join(parts)
    for kind, tokenizer in trained.items():
        special = set(tokenizer.special_tokens.values()) - {tokenizer.unk_id}
        assert not special & set(tokenizer.encode(text))
        assert not special & set(tokenizer.encode_batch([text])[0].tolist())
        assert not special & set(tokenizer.encode(text * 300))
        if kind != "chars":
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_found_when_asked_for(trained, kind):
    tokenizer = trained[kind]
    ids = tokenizer.encode("a<|endoftext|>b", specials=True)
    assert ids == [*tokenizer.encode("a"), tokenizer.bos_id, *tokenizer.encode("b")]
    assert tokenizer.encode_batch(["a<|endoftext|>b"], specials=True)[0].tolist() == ids
    assert tokenizer.decode(ids) == "ab"
    assert tokenizer.decode(ids, skip_specials=False) == "a<|endoftext|>b"


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_what_save_writes_with_the_same_ids(trained, kind, tmp_path, corpus):
    from transformers import AutoTokenizer

    tokenizer = trained[kind]
    tokenizer.save(tmp_path)
    peer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(peer) == tokenizer.vocab_size
    assert (peer.bos_token_id, peer.eos_token_id, peer.pad_token_id) == (tokenizer.bos_id, tokenizer.eos_id,
                                                                          tokenizer.pad_id)
    for text in (TEXT, corpus[0]):
        ids = tokenizer.encode(text, specials=True)
        assert peer(text, add_special_tokens=False).input_ids == ids
        assert peer(text).input_ids == [tokenizer.bos_id, *ids]  # as in training, a document begins with bos
        assert peer.decode(ids) == tokenizer.decode(ids, skip_specials=False)
    peer.save_pretrained(tmp_path / "again")
    assert load(tmp_path / "again").fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_pickled_tokenizers_are_the_same(trained, kind, tmp_path):
    tokenizer = trained[kind]
    tokenizer.save(tmp_path / "tokenizer")
    for other in (load(tmp_path), load(tmp_path / "tokenizer" / "tokenizer.json"), pickle.loads(pickle.dumps(tokenizer))):
        assert other.fingerprint == tokenizer.fingerprint
        assert (other.kind, other.vocab_size, other.special_tokens) == (kind, tokenizer.vocab_size,
                                                                        tokenizer.special_tokens)
        assert (other.bos_id, other.pad_id, other.unk_id) == (tokenizer.bos_id, tokenizer.pad_id, tokenizer.unk_id)
        assert other.encode(TEXT) == tokenizer.encode(TEXT)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "chars", "bytes"])
def test_training_again_gives_the_same_tokenizer(trained, kind, corpus):
    assert train(corpus, kind, 2000).fingerprint == trained[kind].fingerprint


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_vocabulary_has_exactly_the_size_asked_for(corpus, kind):
    assert train(corpus[:2], kind, 700).vocab_size == 700


def test_text_too_small_for_any_vocabulary_is_refused_without_impossible_advice():
    with pytest.raises(RequestError, match="fewer than the 256 a vocabulary needs: give more text"):
        train(["ab"], "bpe", 1000)


def test_smallest_vocabulary_still_encodes_everything(corpus):
    for kind in ("bpe", "unigram"):
        tokenizer = train(corpus[:2], kind, 256)
        assert tokenizer.vocab_size == 256 and tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_more_special_tokens_can_be_asked_for(corpus):
    for kind in KINDS:
        tokenizer = train(corpus[:2], kind, 600, specials=["<|im_start|>", "<|im_end|>"])
        assert list(tokenizer.special_tokens)[-2:] == ["<|im_start|>", "<|im_end|>"]
        assert tokenizer.encode("<|im_end|>", specials=True) == [tokenizer.special_tokens["<|im_end|>"]]
        assert len(tokenizer.encode("<|im_end|>")) > 1


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_vocabulary_larger_than_the_text_supports_says_how_many_it_does(kind):
    texts = ["the cat sat on the mat, the dog sat on the log while thirteen thin thinkers thought of thimbles. " * 30,
             " ".join(f"{a}{b}ing {b}{a}ed" for a in ("walk", "talk", "look", "jump") for b in ("er", "est", "ness"))] * 9
    with pytest.raises(RequestError, match=r"vocab_size: 5000 is more than .* supports: .* give \d+ tokens") as caught:
        train(texts, kind, 5000)
    supported = int(str(caught.value).split(" give ")[1].split()[0])
    assert "\n" not in str(caught.value)
    assert train(texts, kind, supported).vocab_size == supported


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "chars"])
@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_empty_text_is_refused(kind, texts):
    with pytest.raises(RequestError, match="training text of the tokenizer is empty"):
        train(texts, kind, 1000)


@pytest.mark.parametrize(("kind", "pattern", "said"), [
    ("bpe", "gpt2", "'gpt2' is not known: llmwright, gpt-2, llama-bpe"),
    ("unigram", "gpt-2", "for kind bpe; this is unigram"),
])
def test_a_pattern_that_cannot_be_used_is_refused(kind, pattern, said):
    with pytest.raises(RequestError, match=said):
        train(["some text"], kind, 300, pattern=pattern)


@pytest.mark.parametrize(("kind", "size", "message"), [
    ("bpe", 255, "255 is not allowed: 256 to 262144"), ("unigram", 262_145, "not allowed"),
    ("wordpiece", 300, "too small for wordpiece"), ("bpee", 1000, "'bpee' is not known"),
])
def test_impossible_requests_are_refused_with_the_key_named(kind, size, message):
    with pytest.raises(RequestError, match=message) as caught:
        train(["some text"], kind, size)
    assert str(caught.value).startswith("tokenizer.")


def test_ids_outside_the_vocabulary_are_refused(trained):
    for wrong in (-1, 2000):
        with pytest.raises(RequestError, match="outside the vocabulary: 0 to 1999"):
            trained["bpe"].decode([wrong])


@pytest.mark.parametrize("kind", KINDS)
def test_mask_and_sentinels_stand_where_others_look_for_them(corpus, kind, tmp_path):
    """<extra_id_0> has the highest id, as in T5; saved, transformers finds the mask token and the same ids."""
    from transformers import AutoTokenizer

    tokenizer = train(corpus[:1] + corpus[-30:], kind, 900, mask=True, sentinels=5)
    assert kind in ("chars", "bytes") or tokenizer.vocab_size == 900
    assert tokenizer.sentinel_ids == [tokenizer.vocab_size - 1 - i for i in range(5)]
    assert tokenizer.token(tokenizer.sentinel_ids[1]) == "<extra_id_1>"
    assert tokenizer.token(tokenizer.mask_id) == "<|mask|>"
    tokenizer.save(tmp_path)
    again, theirs = load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert (again.mask_id, again.sentinel_ids) == (tokenizer.mask_id, tokenizer.sentinel_ids)
    assert theirs.mask_token_id == tokenizer.mask_id and len(theirs) == tokenizer.vocab_size
    text = "a <|mask|> b<extra_id_3>"
    ids = tokenizer.encode(text, specials=True)
    assert {tokenizer.mask_id, tokenizer.sentinel_ids[3]} < set(ids) and not {tokenizer.mask_id} & set(tokenizer.encode(text))
    assert theirs(text, add_special_tokens=False).input_ids == ids
    if kind != "chars":
        assert tokenizer.decode(tokenizer.encode(text)) == text
    if kind in ("bpe", "unigram", "wordpiece"):  # there a word holds the space before it, and so does the mask
        assert tokenizer.encode("the <|mask|> of", specials=True) == [
            *tokenizer.encode("the"), tokenizer.mask_id, *tokenizer.encode(" of")
        ]


def test_a_tokenizer_without_them_says_so(trained):
    assert trained["bpe"].mask_id is None and trained["bpe"].sentinel_ids == []


@pytest.mark.parametrize("kind", ["bpe", "unigram", "bytes"])
def test_a_closed_tokenizer_ends_a_text_for_other_tools_where_others_begin_it(corpus, kind, tmp_path):
    from transformers import AutoTokenizer

    for closed, name in ((False, "open"), (True, "closed")):
        tokenizer = train(corpus, kind, 300, closed=closed)
        tokenizer.save(tmp_path / name)
        ids, end = tokenizer.encode("some text"), tokenizer.eos_id
        assert AutoTokenizer.from_pretrained(tmp_path / name)("some text").input_ids == ([*ids, end] if closed else [end, *ids])
        assert tokenizer.decode([*ids, end]) == "some text"
