"""Sentence encoders: vectors are those of sentence-transformers' steps (transformer, pooling, normalization), whoever
wrote the directory."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from table import record
from test_bert import make

import llmwright as lw
from llmwright.checkpoint import directory
from llmwright.engine.embed import embed
from llmwright.errors import RequestError
from llmwright.model.config import Sentence
from llmwright.tokens.published import read_bert
from llmwright.tokens.tokenizer import Tokenizer

SENTENCES = [
    "A man is eating food.", "The girl is carrying a baby.", "Two men pushed carts through the woods!", "x",
    "Ünïcode, emoji 🙂 and 漢字; [SEP] written out is text. " * 3, "It was long ago. " * 100,
]
TYPE = "sentence_transformers.models."
MODULES = [{"idx": 0, "name": "0", "path": "", "type": TYPE + "Transformer"},
           {"idx": 1, "name": "1", "path": "1_Pooling", "type": TYPE + "Pooling"},
           {"idx": 2, "name": "2", "path": "2_Normalize", "type": TYPE + "Normalize"}]


def steps(theirs, seen: torch.Tensor, input_ids: torch.Tensor, pooling: str, normalize: bool) -> torch.Tensor:
    """What sentence-transformers does, with transformers."""
    states = theirs.base_model(input_ids, attention_mask=seen.long()).last_hidden_state
    if pooling == "first":
        pooled = states[:, 0]
    elif pooling == "max":
        pooled = torch.stack([row[keep].amax(0) for row, keep in zip(states, seen)])
    else:
        pooled = torch.stack([row[keep].mean(0) for row, keep in zip(states, seen)])
    return torch.nn.functional.normalize(pooled) if normalize else pooled


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "first", "max"])
@torch.no_grad()
def test_each_pooling_is_what_it_says_and_survives_the_way_to_the_files_and_back(pooling, normalize, tmp_path):
    theirs = make("bert model")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = directory.load(tmp_path / "theirs")
    assert ours.config.sentence is None
    how = Sentence(pooling, normalize, max_tokens=40, prompts=(("query", "q: "), ("document", "")), prompt="document")
    ours.config = replace(ours.config, sentence=how)
    seen = torch.arange(40) < torch.tensor([40, 17, 3])[:, None]
    input_ids = torch.randint(5, 131, (3, 40)).masked_fill(~seen, 0)
    got = ours.vectors(input_ids, seen)
    wanted = steps(theirs, seen, input_ids, pooling, normalize)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
    record("bert", "vectors", (got - wanted).abs().max())
    directory.save(ours, tmp_path / "ours")
    again = directory.load(tmp_path / "ours")
    assert again.config == ours.config
    torch.testing.assert_close(again.vectors(input_ids, seen), got, rtol=0, atol=0)


def write(path: Path, modules=MODULES, pooling=None, limit=None, tokenizer=None, prompts=None) -> Path:
    """A sentence encoder's directory with these files beside its config.json."""
    make("bert model").save_pretrained(path)
    files = {"modules.json": modules, "1_Pooling/config.json": pooling, "sentence_bert_config.json": limit,
             "tokenizer_config.json": tokenizer, "config_sentence_transformers.json": prompts}
    for name, content in files.items():
        if content is not None:
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return path


OLD_MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}


@pytest.mark.parametrize("files, wanted", [
    (dict(pooling=OLD_MEAN, limit={"max_seq_length": 32, "do_lower_case": True}), Sentence("mean", True, 32, True)),
    (dict(modules=MODULES[:2], pooling={"pooling_mode": "cls"}), Sentence("first", False)),
    (dict(pooling={"pooling_mode": ["max"], "include_prompt": True}), Sentence("max", True)),
    (dict(pooling={}), Sentence("mean", True)),
    (dict(limit={"max_seq_length": 512}), Sentence("mean", True, 48)),  # no more than the model reads
    (dict(tokenizer={"model_max_length": 24}), Sentence("mean", True, 24)),  # where versions from 6 on say it
    (dict(tokenizer={"model_max_length": 10**30}), Sentence("mean", True, 48)),
    (dict(prompts={"prompts": {"query": "ask: "}, "default_prompt_name": "query"}),
     Sentence("mean", True, None, False, (("query", "ask: "),), "query")),
])
def test_what_the_files_say_is_read(files, wanted, tmp_path):
    assert directory.load_config(write(tmp_path / "m", **files)).sentence == wanted


@pytest.mark.parametrize("files, said", [
    (dict(modules=[MODULES[0], MODULES[1] | {"type": TYPE + "Dense"}]), "Transformer, Dense is not supported"),
    (dict(modules=MODULES[:1]), "Transformer is not supported"),
    (dict(modules=[3]), "not a list of modules"),
    (dict(modules={}), "must be a JSON list"),
    (dict(modules="[{"), "modules.json: not valid JSON"),
    (dict(pooling={"pooling_mode": "lasttoken"}), "pooling by lasttoken is not supported; supported: cls or mean or"),
    (dict(pooling=OLD_MEAN | {"pooling_mode_max_tokens": True}), "pooling by mean and max"),
    (dict(pooling={"include_prompt": False}), "include_prompt"),
    (dict(prompts={"prompts": {"q": 3}}), "mapping of names to texts"),
    (dict(prompts={"prompts": {}, "default_prompt_name": "q"}), "no prompt 'q'"),
])
def test_what_is_not_supported_is_one_clear_line(files, said, tmp_path):
    with pytest.raises(RequestError) as caught:
        directory.load(write(tmp_path / "m", **files))
    assert said in str(caught.value).replace("max and mean", "mean and max") and "\n" not in str(caught.value)


def test_info_says_how_states_become_a_vector(tmp_path, capsys):
    from llmwright.cli import run

    prompts = {"prompts": {"query": "ask: "}}
    write(tmp_path / "m", pooling=OLD_MEAN, limit={"max_seq_length": 32}, prompts=prompts)
    assert run(["info", str(tmp_path / "m")]) == 0
    out = capsys.readouterr().out
    said = "the mean of the states at length 1, of at most 32 tokens; prompts query (llmwright embed)"
    assert f"sentences      {said}" in out
    assert "131, no head over it: the model ends in states" in out


def test_a_module_outside_the_directory_is_not_read(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text('{"pooling_mode": "lasttoken"}')
    modules = [MODULES[0], MODULES[1] | {"path": "../elsewhere"}]
    assert directory.load_config(write(tmp_path / "m", modules)).sentence.pooling == "mean"


# MiniLM


@pytest.mark.network
@torch.no_grad()
def test_minilm_gives_the_vectors_of_transformers_with_mean_pooling(minilm, tmp_path):
    loaded = lw.load(minilm)
    theirs = transformers.AutoModel.from_pretrained(minilm, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    texts = [s.replace("[SEP]", "(sep)") for s in SENTENCES]
    made = tokenizer(texts, padding="longest", truncation=True, max_length=256, return_tensors="pt")
    seen = made.attention_mask.bool()
    wanted = steps(theirs, seen, made.input_ids, "mean", True)
    got = torch.from_numpy(loaded.embed(texts))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    record("bert", "real weights", (got - wanted).abs().max())
    directory.save(loaded.model, tmp_path / "m", tokenizer=loaded.tokenizer)
    again = lw.load(tmp_path / "m")
    assert again.model.config == loaded.model.config
    assert np.array_equal(again.embed(SENTENCES), loaded.embed(SENTENCES))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")(SENTENCES[0]).input_ids
    assert theirs == tokenizer(SENTENCES[0]).input_ids


CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
PEER = CACHE / "llmwright/peers/sentence-transformers/bin/python"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(not PEER.exists(), reason="needs the environment that bench/embed.py makes")
def test_sentence_transformers_reads_what_we_write(minilm, tmp_path):
    loaded = lw.load(minilm)
    directory.save(loaded.model, tmp_path / "m", tokenizer=loaded.tokenizer)
    code = ("import sys, json, numpy as np; from sentence_transformers import SentenceTransformer as S; "
            "m = S(sys.argv[1], device='cpu'); assert m.max_seq_length == 256; "
            "np.save(sys.argv[2], m.encode(json.loads(sys.argv[3])))")
    texts = [s.replace("[SEP]", "(sep)") for s in SENTENCES]
    subprocess.run([PEER, "-c", code, tmp_path / "m", tmp_path / "v.npy", json.dumps(texts)], check=True,
                   env={**os.environ, "HF_HUB_OFFLINE": "1"})
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), loaded.embed(texts), atol=1e-5)


def test_words_of_a_vocab_txt_get_their_marks(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    make("bert model").save_pretrained(tmp_path / "m")
    tokenizer = Tokenizer(*read_bert(tmp_path / "vocab.txt"))
    model = directory.load(tmp_path / "m")
    wanted = model.vectors(torch.tensor([[2, 5, 6, 3]])).detach().numpy()
    np.testing.assert_allclose(embed(model, tokenizer, ["a b"]), wanted, atol=1e-6)
