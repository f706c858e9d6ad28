"""The share that parses, from a model that is known to be good or bad."""

import json
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from llmwright import families
from llmwright.data.shards import DataDir, ShardWriter
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.errors import RequestError
from llmwright.evals.completions import python_share
from llmwright.model.build import new
from llmwright.tokens.train import train

FILES = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:20]
TOKENIZER = train([file.read_text() for file in FILES], "bpe", 800)


def make(context: int = 512, width: int = 32):
    return new(families.read_config({
        "model_type": "llama", "vocab_size": TOKENIZER.vocab_size, "hidden_size": width, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": context,
    }), seed=1).eval()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    writer = ShardWriter(path / "test", "source", TOKENIZER.vocab_size, 100_000)
    for text in [*(file.read_text() for file in FILES), "Not Python at all, only words.\n" * 30]:
        writer.add(np.array([TOKENIZER.bos_id, *TOKENIZER.encode(text)]), len(text.encode()))
    splits = {"test": {"shards": writer.close()}}
    card = {"vocab_size": TOKENIZER.vocab_size, "bos_id": TOKENIZER.bos_id, "splits": splits}
    (path / "data.json").write_text(json.dumps(card))
    return DataDir.open(path).split("test")


def test_a_model_that_knows_nothing_writes_no_python_and_the_text_itself_does(split):
    r = python_share(make(), TOKENIZER, split, n=8, max_tokens=60, sampling=Sampling(seed=0))
    assert r["check_n"] == 8 == len(r["checked"])
    assert r["parse_share"] < 0.3 < 0.6 < r["parse_share_of_text"] <= 1
    assert r["parse_share"] == sum(c["parses"] for c in r["checked"]) / 8
    assert not any("Not Python" in c["prompt"] for c in r["checked"])


def test_a_model_that_writes_one_good_line_again_and_again_counts(split):
    model = make(width=TOKENIZER.vocab_size)  # each token a direction of its own
    ids = TOKENIZER.encode("pass\n")
    with torch.no_grad():
        for block in model.blocks:
            block.attention.out.weight.zero_()
            block.feed_forward.down.weight.zero_()
        torch.nn.init.eye_(model.embed.weight)
        model.head.weight.zero_()
        model.head.weight[ids[0]] = 1  # whatever comes before, the line begins
        for a, b in zip(ids, ids[1:]):
            model.head.weight[b, a] = 2  # within it, it goes on
    r = python_share(model, TOKENIZER, split, n=5, max_tokens=20, sampling=GREEDY)
    assert r["checked"][0]["text"].startswith("pass\npass\n")
    assert r["parse_share"] == 1


def test_the_same_seed_gives_the_same_share(split):
    a, b = (python_share(make(), TOKENIZER, split, n=3, max_tokens=10, sampling=Sampling(seed=3)) for _ in range(2))
    assert a == b


def test_no_room_for_a_prompt_is_said(split):
    with pytest.raises(RequestError, match="no document begins"):
        python_share(make(context=40), TOKENIZER, split, n=3, max_tokens=20)
    with pytest.raises(RequestError, match="no room"):
        python_share(make(context=40), TOKENIZER, split, n=3, max_tokens=40)
