"""An encoder behind the server: vectors, the same as without it; no completions, and it says so."""

import base64

import numpy as np
import pytest
from server_case import Server

from llmwright.checkpoint import directory
from llmwright.engine.language_model import load
from llmwright.families import read_config
from llmwright.model.build import new
from llmwright.tokens.published import read_bert
from llmwright.tokens.tokenizer import Tokenizer

WORDS = "the cat sat on a mat dog ran far and me you".split()
TEXTS = ["the cat sat on the mat", "a dog ran far", "you and me"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    shape = dict(model_type="bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                 max_position_embeddings=32, vocab_size=20, type_vocab_size=2, initializer_range=0.3)
    directory.save(new(read_config(shape), seed=2).eval(), path / "m", tokenizer=Tokenizer(*read_bert(path / "vocab.txt")))
    return path / "m"


@pytest.fixture(scope="module")
def vectors(encoder):
    made = Server(encoder)
    yield made
    made.close()
    assert not [line for line in made.log() if line["event"] == "defect"]


def test_vectors_are_those_of_the_model(vectors, encoder):
    wanted = load(encoder).embed(TEXTS)
    found = vectors.post("/v1/embeddings", input=TEXTS).json()
    assert [d["index"] for d in found["data"]] == [0, 1, 2] and found["object"] == "list"
    assert np.allclose([d["embedding"] for d in found["data"]], wanted, atol=1e-5)
    assert found["usage"] == {"prompt_tokens": 8 + 6 + 5, "total_tokens": 19}
    coded = vectors.post("/v1/embeddings", input=TEXTS[0], encoding_format="base64").json()["data"][0]["embedding"]
    assert np.allclose(np.frombuffer(base64.b64decode(coded), "<f4"), wanted[0], atol=1e-5)
    assert vectors.idle()["vllm:prompt_tokens_total"] == 19 + 8


def test_openai_s_client_gets_vectors(vectors, encoder):
    openai = pytest.importorskip("openai", reason="needs the openai package")
    with openai.OpenAI(base_url=f"{vectors.url}/v1", api_key="none", max_retries=0) as client:
        found = client.embeddings.create(model="m", input=TEXTS)
    assert np.allclose([d.embedding for d in found.data], load(encoder).embed(TEXTS), atol=1e-5)


def test_an_encoder_writes_nothing_and_says_so(vectors):
    for path, body in (("/v1/completions", {"prompt": "x"}),
                       ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
        answer = vectors.post(path, **body)
        assert answer.status_code == 400 and "/v1/embeddings" in answer.json()["error"]["message"]
    assert vectors.client.get("/v1/models").json()["data"][0]["kind"] == "encoder"


@pytest.mark.parametrize("body, param", [
    ({}, "input"), ({"input": []}, "input"), ({"input": [""]}, "input"), ({"input": "  "}, "input"), ({"input": [1, 2]}, "input"),
    ({"input": "cat " * 100}, "input"), ({"input": ["x"] * 3000}, "input"), ({"input": "cat", "dimensions": 5}, "dimensions"),
    ({"input": "cat", "encoding_format": "int8"}, "encoding_format"), ({"input": "cat", "task": "x"}, "task"),
])
def test_what_is_wrong_is_refused_by_name(vectors, body, param):
    answer = vectors.post("/v1/embeddings", **body)
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith(param), answer.text
    assert vectors.post("/v1/embeddings", input="cat").status_code == 200
