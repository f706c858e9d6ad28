"""Words are told from tokens as a reader would cut them."""

import json

import numpy as np
import pytest

from llmwright.tokens.load import load
from llmwright.tokens.tokenizer import Tokenizer
from llmwright.tokens.whole_words import goes_on, heads_and_tails


def words(tokenizer, text: str) -> list[str]:
    ids = np.array(tokenizer.encode(text))
    joined = goes_on(*heads_and_tails(tokenizer), ids[:-1], ids[1:])
    out = [tokenizer.token_bytes(ids[0])]
    for i, same in zip(ids[1:], joined):
        if same:
            out[-1] += tokenizer.token_bytes(i)
        else:
            out.append(tokenizer.token_bytes(i))
    return [word.decode().strip(" ") for word in out]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "chars"])
def test_a_word_is_whole_however_it_is_cut(trained, kind):
    text = "unbelievable counterrevolutionaries self.methodname(12345)"
    found = [word for word in words(trained[kind], text) if word]
    assert found[:2] == text.split()[:2]
    joined = [word.lstrip(".") for word in found]
    assert "self" in joined and "methodname" in joined and "".join(found) == text.replace(" ", "")


def test_characters_of_several_tokens_are_never_torn(trained):
    assert "žluťoučký" in words(trained["bytes"], "a žluťoučký kůň")


def test_published_vocabularies(shared):
    bert = load(shared("bert_vocab/vocab.txt"))
    assert words(bert, "unaffable embeddings!") == ["unaffable", "embeddings", "!"]
    t5 = load(shared("t5_tokenizer/sentencepiece.model"))
    assert words(t5, "unaffable embeddings") == ["unaffable", "embeddings"]
    gpt2 = load(shared("gpt2_vocab/vocab.bpe"))
    assert words(gpt2, "unaffable embeddings, 中文") == ["unaffable", "embeddings", ",", "", "中", "文"]


def test_a_marked_character_of_a_script_without_spaces_is_a_word_of_its_own():
    from tokenizers import Tokenizer as Library, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate(["[UNK]", "我", "##们", "##在", "play", "##ing", "##12"])}
    library = Library(models.WordPiece(vocabulary, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    heads, tails = heads_and_tails(Tokenizer(json.loads(library.to_str())))
    ids = np.array([1, 2, 3, 4, 5, 6])
    assert goes_on(heads, tails, ids[:-1], ids[1:]).tolist() == [False, False, False, True, True]
