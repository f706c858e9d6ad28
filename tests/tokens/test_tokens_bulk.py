"""Bulk encoding gives the ids of the tokenizers library, or is not used."""

import copy
import itertools

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from llmwright.tokens import bulk
from llmwright.tokens.load import load
from llmwright.tokens.tokenizer import Tokenizer

NASTY = ["\n", "\r\n", "\t", "  ", "\x85", "\u2028", "\u3000", "\xa0", "\x1c", "\x00", "\x0b", "\u200d", "\u0301", "ſ", "K", "İ",
         "'s", "'S", "'ſ", "'LL", "'re", "don't", "٣", "²", "Ⅷ", "½", "123456", "中文字", "क्षि", "👩‍👩‍👧‍👦", "\ufffe", "\U0010ffff",
         "<|endoftext|>", "<|pad|>", " def", "self.", "____", "====", "#", "'", " ", "e\u0301", "\u1acf", "\U00016ea0"]
TEXT = st.one_of(st.text(), st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=3)), max_size=40).map("".join))


@pytest.fixture(scope="module")
def by_pattern(trained) -> list[Tokenizer]:
    """A tokenizer for each pattern that may run in bulk: merges say nothing of where text is cut."""
    made = [trained["bpe"]]
    for pattern in sorted(bulk.PATTERNS - {bulk.PATTERN}):
        tree = copy.deepcopy(trained["bpe"].tree)
        split, byte_level = tree["pre_tokenizer"]["pretokenizers"]
        split["pattern"] = {"Regex": pattern}
        if pattern == bulk.GPT2:
            tree["pre_tokenizer"] = {**byte_level, "use_regex": True}
        made.append(Tokenizer(tree, {}))
    return made


def reference(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer._plain_core.encode(text, add_special_tokens=False).ids


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_bulk_ids_equal_those_of_tokenizers_on_random_unicode(by_pattern, text):
    for tokenizer in by_pattern:
        assert tokenizer._bulk is not None
        assert tokenizer.encode_batch([text])[0].tolist() == reference(tokenizer, text)


def test_bulk_ids_equal_those_of_tokenizers_on_long_runs(by_pattern):
    for tokenizer, unit in itertools.product(by_pattern, ("a", "ab ", "中文", " ", "=-", "\n", "7", "e\u0301")):
        text = unit * 6000
        assert tokenizer.encode_batch([text])[0].tolist() == reference(tokenizer, text)


def test_bulk_ids_equal_those_of_tokenizers_on_source_code(by_pattern, corpus):
    for tokenizer in by_pattern:
        for text in corpus[:6]:
            assert tokenizer.encode_batch([text])[0].tolist() == reference(tokenizer, text)


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_gpt2_bulk_ids_equal_those_of_tokenizers(shared, text):
    tokenizer = _gpt2(shared)
    assert tokenizer._bulk is not None
    assert tokenizer.encode_batch([text])[0].tolist() == reference(tokenizer, text)


def _gpt2(shared, kept=[]):
    if not kept:
        kept.append(load(shared("gpt2_vocab/vocab.bpe")))
    return kept[0]


EVERY = "".join(map(chr, itertools.chain(range(0xD800), range(0xE000, 0x110000))))
BYTES = {bytes([i]): i for i in range(256)}


def matches(pattern: str, text: str) -> tuple[str, str]:
    """What the two libraries match, joined."""
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    by_tokenizers = "".join(piece for piece, _ in split.pre_tokenize_str(text))
    encoding = tiktoken.Encoding("bytes", pat_str=pattern, mergeable_ranks=BYTES, special_tokens={})
    return by_tokenizers, bytes(encoding.encode_ordinary(text)).decode()


@pytest.mark.parametrize("letters", [r"\p{L}+", r"\p{M}+", r"\p{N}+", r"\s+"])
def test_every_character_is_in_the_same_class_in_both_libraries(letters):
    first, second = matches(letters, EVERY)
    assert first == second and len(first) > 20


def test_contractions_fold_case_the_same_way_in_both_libraries():
    cased = [c for c in EVERY if not c.lower() == c.upper() == c.casefold()]
    text = "|".join(f"'{c}|'{c}{other}|'{other}{c}" for c in cased for other in "elrv")
    first, second = matches("(?i:'s|'t|'re|'ve|'m|'ll|'d)", text)
    assert first == second
    assert all(found in first for found in ("'ſ", "'Re", "'Ve", "'Ll"))


def byte_level(merges: list[list[str]], more: list[str] = (), **tree) -> Tokenizer:
    """A byte-level BPE with these merges, in the order of ids, and `more` tokens that no merge makes."""
    base = load_bytes()
    vocabulary = dict(base["model"]["vocab"])
    for token in [left + right for left, right in merges] + list(more):
        vocabulary.setdefault(token, len(vocabulary))
    model = {**base["model"], "vocab": vocabulary, "merges": merges}
    return Tokenizer({**base, "added_tokens": [], "post_processor": None, "model": model, **tree}, {})


def load_bytes() -> dict:
    from llmwright.tokens.train import train

    base = train([], "bytes").tree
    return {**base, "pre_tokenizer": {**base["pre_tokenizer"], "use_regex": True}}


def test_bulk_is_used_where_merges_and_ids_agree():
    tokenizer = byte_level([["a", "b"], ["ab", "c"]])
    assert tokenizer._bulk is not None
    assert tokenizer.encode_batch(["abcab"])[0].tolist() == [257, 256]


def test_bulk_is_refused_where_a_token_does_not_encode_to_itself():
    # "abc" is made from "ab" and "c", but "b" and "c" join first, so the library never reaches it; tiktoken would
    tokenizer = byte_level([["b", "c"], ["a", "b"], ["ab", "c"]])
    abc = tokenizer.tree["model"]["vocab"]["abc"]
    assert bulk.Bulk(bulk.GPT2, bulk.ranks_of(tokenizer.tree), {}).encode("abc").tolist() == [abc]
    assert tokenizer._bulk is None
    assert tokenizer.encode_batch(["abc"])[0].tolist() == reference(tokenizer, "abc") == [97, 256]


def test_bulk_is_refused_where_ids_do_not_rise_with_the_merges():
    tokenizer = byte_level([["a", "b"], ["b", "c"]])
    tokenizer.tree["model"]["merges"].reverse()
    assert tokenizer._bulk is None
    assert tokenizer.encode_batch(["abc"])[0].tolist() == reference(tokenizer, "abc") == [97, 257]


@pytest.mark.parametrize("change", [
    {"normalizer": {"type": "Lowercase"}},
    {"added_tokens": [{"id": 256, "content": "ab", "single_word": False, "lstrip": False, "rstrip": False,
                       "normalized": False, "special": False}]},
    {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}},
    {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
])
def test_bulk_is_refused_where_more_than_merges_decides(change):
    tokenizer = byte_level([["a", "b"]], **change)
    assert tokenizer._bulk is None
    assert tokenizer.encode_batch(["AB ab 12"])[0].tolist() == reference(tokenizer, "AB ab 12")


def test_bulk_is_refused_where_a_token_has_no_merge():
    assert byte_level([["a", "b"]], more=["xyz"])._bulk is None
