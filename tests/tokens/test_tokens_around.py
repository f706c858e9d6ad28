"""What goes around a text is what the tokenizers library puts there, cut the same way; `encode` itself puts nothing."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers.processors import BertProcessing, ByteLevel, RobertaProcessing, Sequence, TemplateProcessing

from llmwright.errors import RequestError
from llmwright.tokens import around
from llmwright.tokens.tokenizer import Tokenizer

WORDS = "the cat sat on mat a dog ran to me".split()
VOCABULARY = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
SPECIAL = [("[CLS]", 2), ("[SEP]", 3)]
PROCESSORS = {
    "BERT": BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "RoBERTa": RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "BERT's template": TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=SPECIAL),
    "T5's": TemplateProcessing(single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=SPECIAL),
    "Llama 3's": Sequence([
        ByteLevel(), TemplateProcessing(single="[CLS] $A", pair="[CLS] $A [CLS]:1 $B:1", special_tokens=SPECIAL)]),
    "none": None,
}


def tree(processor) -> dict:
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100, "vocab": VOCABULARY}
    added = [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for token, i in list(VOCABULARY.items())[:5]]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None if processor is None else json.loads(processor.__getstate__()),
        "decoder": None, "model": model,
    }


texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


@pytest.mark.parametrize("name", PROCESSORS)
@settings(max_examples=60, deadline=None)
@given(one=texts, other=st.none() | texts, limit=st.none() | st.integers(7, 20))
def test_texts_and_pairs_are_framed_and_cut_as_by_the_library(name, one, other, limit):
    content = tree(PROCESSORS[name])
    library, ours = Library.from_str(json.dumps(content)), Tokenizer(content)
    if limit:
        library.enable_truncation(limit)
    wanted = library.encode(one, other)
    encoded = [None if text is None else ours.encode(text) for text in (one, other)]
    ids, types = around.read(content).put(*encoded, max_tokens=limit)
    assert ids.tolist() == wanted.ids and types.tolist() == wanted.type_ids


def test_no_room_for_a_text_is_said():
    with pytest.raises(RequestError, match="2 tokens leave no room for a text beside its 2 marks"):
        around.read(tree(PROCESSORS["BERT"])).put([5], max_tokens=2)


@pytest.mark.parametrize("step, said", [
    ({"type": "Strange"}, "'Strange' is not supported"), ({"type": "BertProcessing"}, "cannot be read"),
    ({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}]}, "cannot be read"),
])
def test_a_post_processor_that_is_not_known_is_one_clear_line(step, said):
    with pytest.raises(RequestError, match=said):
        around.read({"post_processor": step})


def test_a_file_that_pads_and_truncates_changes_nothing_of_encode():
    """Published sentence encoders' files carry both (all-MiniLM-L6-v2: padded and cut to 128)."""
    content = tree(None)
    padded = content | {
        "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
    }
    text = "the cat sat on me"
    plain = Tokenizer(content).encode(text)
    assert len(plain) == 5 and Tokenizer(padded).encode(text) == plain
    assert np.array_equal(Tokenizer(padded).encode_batch([text])[0], plain)
