"""llama2.c's checkpoints: the published one tells its story; a wrong header or a missing tokenizer gets one line."""

import struct
from pathlib import Path

import pytest
import torch

import llmwright as lw
from llmwright.checkpoint import llama2c
from llmwright.errors import RequestError

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "ckpt_stories260K"
STORY = ("Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she "
         "saw a big, red ball.")


@pytest.fixture(scope="module")
def stories() -> Path:
    if not SHARED.exists():
        pytest.skip("needs ../shared/data/ckpt_stories260K, which is not here")
    return SHARED / "stories260K.bin"


def test_the_published_model_tells_its_story(stories):
    model = lw.load(stories)
    assert (model.tokenizer.bos_id, model.tokenizer.eos_id, model.tokenizer.vocab_size) == (1, 2, 512)
    from llmwright.engine.generate import generate
    from llmwright.engine.sampler import Sampling

    told = generate(model.model, model.tokenizer, [[1]], max_tokens=60, sampling=Sampling(temperature=0.0))[0].text
    assert told.strip().startswith(STORY)


def test_its_tokenizer_joins_the_pair_that_scores_best_as_llama2c_does(stories):
    tokenizer = llama2c.read_tokenizer(stories.with_name("tok512.bin"))
    data, at, pieces = stories.with_name("tok512.bin").read_bytes(), 4, {}
    while at < len(data):
        score, length = struct.unpack_from("<fI", data, at)
        pieces.setdefault(data[at + 8 : at + 8 + length].decode(), (score, len(pieces)))
        at += 8 + length

    def theirs(text: str) -> list[int]:  # run.c, encode(): a space first, then the best pair until none is a token
        parts = list(" " + text)
        while True:
            joined = [(pieces[a + b][0], -i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in pieces]
            if not joined:
                return [pieces[p][1] for p in parts]
            i = -max(joined)[1]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]

    for text in ("Once upon a time", "Lily and Tom, the big dog!", "they were happy.  The end"):
        assert tokenizer.encode(text) == theirs(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("naïve 🙂")) == "naïve 🙂"  # by bytes


def write(path: Path, *, tied: bool, extra: int = 0) -> dict:
    """A tiny checkpoint with numbers from 0 up, and what they mean."""
    d, f, layers, heads, kv, vocabulary, context = 8, 12, 2, 2, 1, 5, 6
    shapes = [(vocabulary, d), (layers, d), (layers, d, d), (layers, 4 * kv, d), (layers, 4 * kv, d), (layers, d, d),
              (layers, d), (layers, f, d), (layers, d, f), (layers, f, d), (d,), (context, 2), (context, 2)]
    shapes += [] if tied else [(vocabulary, d)]
    counts = [torch.Size(shape).numel() for shape in shapes]
    numbers = torch.arange(sum(counts), dtype=torch.float32)
    header = struct.pack("<7i", d, f, layers, heads, kv, vocabulary if tied else -vocabulary, context)
    path.write_bytes(header + numbers.numpy().tobytes() + bytes(extra))
    return {i: part.view(shape) for i, (part, shape) in enumerate(zip(numbers.split(counts), shapes))}


@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_is_where_the_format_says(tmp_path, tied):
    parts = write(tmp_path / "m.bin", tied=tied)
    c = llama2c.read_config(tmp_path / "m.bin")
    weights = {s.name: s.read(torch.float32) for s in llama2c.stored(tmp_path / "m.bin", c)}
    assert c["tie_word_embeddings"] is tied and ("lm_head.weight" in weights) is not tied
    assert weights["model.embed_tokens.weight"].equal(parts[0]) and weights["model.norm.weight"].equal(parts[10])
    for i, name in ((1, "input_layernorm"), (4, "self_attn.v_proj"), (5, "self_attn.o_proj"),
                    (6, "post_attention_layernorm"), (7, "mlp.gate_proj"), (8, "mlp.down_proj"), (9, "mlp.up_proj")):
        for layer in (0, 1):
            assert weights[f"model.layers.{layer}.{name}.weight"].equal(parts[i][layer])
    # rows of query and key come in rotary pairs; published, the first channels of all pairs stand first
    query = parts[2][1].view(2, 4, 8)[:, [0, 2, 1, 3]].reshape(8, 8)
    assert weights["model.layers.1.self_attn.q_proj.weight"].equal(query)
    assert weights["model.layers.0.self_attn.k_proj.weight"].equal(parts[3][0][[0, 2, 1, 3]])
    if not tied:
        assert weights["lm_head.weight"].equal(parts[13])


def refused(path: Path, *said: str) -> None:
    with pytest.raises(RequestError) as caught:
        lw.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    for part in said:
        assert part in str(caught.value)


def test_wrong_files_are_one_line(tmp_path, stories):
    file = tmp_path / "m.bin"
    write(file, tied=True)
    refused(file, "tokenizer of 5 tokens", "tokenizer.bin")
    (tmp_path / "tok5.bin").write_bytes(struct.pack("<I", 9) + struct.pack("<fI", 0.0, 10**9))
    refused_text = "not a tokenizer of llama2.c"
    with pytest.raises(RequestError, match=refused_text):
        lw.load(file)
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", b"a", b"b"]
    (tmp_path / "tok5.bin").write_bytes(
        struct.pack("<I", 9) + b"".join(struct.pack("<fI", 0.0, len(p)) + p for p in pieces))
    assert lw.load(file).model.config.vocab_size == 5
    write(file, tied=True, extra=4)
    refused(file, "its header calls for", "bytes, and it has")
    whole = file.read_bytes()
    for data, said in ((b"", "28"), (whole[:20], "28"), (whole[:500], "calls for"),
                       (struct.pack("<7i", 8, 12, 2, 3, 1, 5, 6) + whole[28:], "3 heads"),
                       (struct.pack("<7i", 8, 12, 2**30, 2, 1, 5, 6) + whole[28:], "layers"),
                       (struct.pack("<7i", 8, -12, 2, 2, 1, 5, 6) + whole[28:], "d_ff"),
                       (struct.pack("<2I", 0x616B3432, 1) + whole[8:], "version"),
                       (b"PK\x03\x04" + whole, "give the model directory")):
        file.write_bytes(data)
        refused(file, said)
