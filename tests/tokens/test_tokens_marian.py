"""Marian's two SentencePiece models and one vocabulary give the ids of transformers' own tokenizer for them."""

import json
import pydoc_data.topics
import warnings

import pytest
import sentencepiece

from llmwright.errors import RequestError
from llmwright.tokens.load import load

GERMAN = ["Ein Mann fährt mit dem Fahrrad über die Brücke.", "Zwei Kinder spielen im Schnee.", "Größe 3,14 und €5!",
          "Der Hund läuft schnell durch das Gras und fängt den Ball."] * 20
ENGLISH = ["A man rides a bicycle across the bridge.", "Two children play in the snow.", "Size 3.14 and $5, what?",
           "The dog runs quickly through the grass and catches the ball."] * 20
TEXTS = [*GERMAN[:4], "Über Brücken fahren Männer", "  zwei   Leerzeichen ", "", "日本 im Schnee", "what? $5",
         ">>eng<< Ein Hund", "ﬁ Ｆ½"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory as OPUS-MT publishes one, small."""
    folder = tmp_path_factory.mktemp("marian")
    pieces = {"</s>": None, "<unk>": None}
    more = pydoc_data.topics.topics["objects"].splitlines()
    for name, texts, size in (("source", [*GERMAN, *more[::2]], 300), ("target", [*ENGLISH, *more[1::2]], 250)):
        (folder / f"{name}.txt").write_text("\n".join(texts))
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / f"{name}.txt"), model_prefix=str(folder / name), vocab_size=size, model_type="unigram",
            hard_vocab_limit=False, bos_id=-1, minloglevel=2,
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        pieces |= dict.fromkeys(model.id_to_piece(i) for i in range(model.vocab_size()))
    order = [*pieces, ">>eng<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(order)}))
    return folder


@pytest.fixture(scope="module")
def theirs(files):
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends a package that changes punctuation
        return transformers.MarianTokenizer.from_pretrained(files)


def test_sources_have_their_ids_with_the_end_token_behind(files, theirs):
    ours = load(files)
    assert (ours.eos_id, ours.unk_id, ours.pad_id, ours.bos_id) == (0, 1, theirs.pad_token_id, None)
    assert ours.vocab_size == len(theirs)
    for text in TEXTS:
        assert [*ours.encode(text), ours.eos_id] == theirs(text).input_ids, text


def test_targets_are_read_back_as_the_same_text(files, theirs):
    ours = load(files)
    for text in ENGLISH[:4]:
        ids = theirs(text_target=text).input_ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True) == text


def test_what_we_save_is_one_tokenizer_json_with_the_same_ids(files, tmp_path):
    import transformers

    ours = load(files)
    ours.save(tmp_path)
    again, fast = load(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert again.encode(text) == ours.encode(text)
        assert fast(text).input_ids == [*ours.encode(text), ours.eos_id]


@pytest.mark.parametrize("change, said", [
    (lambda folder: (folder / "vocab.json").unlink(), "needs vocab.json beside it"),
    (lambda folder: (folder / "vocab.json").write_text('{"</s>": 0, "<unk>": 2, "<pad>": 1}{'), "not valid JSON"),
    (lambda folder: (folder / "vocab.json").write_text('{"</s>": 0, "<unk>": 3, "<pad>": 1}'), "not a Marian vocabulary"),
    (lambda folder: (folder / "vocab.json").write_text('{"a": 0, "b": 1}'), "not a Marian vocabulary"),
    (lambda folder: (folder / "target_vocab.json").write_text("{}"), "of its own for the target"),
    (lambda folder: (folder / "source.spm").write_bytes(b"\xff\xff\xff"), "source.spm: not a SentencePiece model"),
])
def test_what_is_none_is_one_line(files, tmp_path, change, said):
    for name in ("source.spm", "vocab.json"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    change(tmp_path)
    with pytest.raises(RequestError, match=said) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
