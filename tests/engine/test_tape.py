"""The list of native operations gives the numbers of the blocks that it was written from."""

import copy
import threading
from pathlib import Path

import pytest
import torch
from small import tokenizer
from test_llm import FAMILIES, PROMPTS

from llmwright import families
from llmwright.engine import weights
from llmwright.engine.generate import generate
from llmwright.engine.kept import KeptStepper
from llmwright.engine.language_model import LanguageModel
from llmwright.engine.llm import LLM
from llmwright.engine.sampler import GREEDY
from llmwright.errors import RequestError
from llmwright.kernels import native
from llmwright.model.build import new

pytestmark = pytest.mark.skipif(not native.vnni(), reason="no native kernels of few bits here")
LIKE_LLAMA = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
                  max_position_embeddings=64, initializer_range=0.3)
DECODERS = {
    "llama": dict(LIKE_LLAMA, model_type="llama"),
    "llama of whole groups": dict(LIKE_LLAMA, model_type="llama", hidden_size=64),
    "llama, biases": dict(LIKE_LLAMA, model_type="llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "mistral": dict(LIKE_LLAMA, model_type="mistral", sliding_window=5),
    "qwen3": dict(LIKE_LLAMA, model_type="qwen3", head_dim=16),
    "gemma3": dict(LIKE_LLAMA, model_type="gemma3_text", head_dim=12, sliding_window=5, query_pre_attn_scalar=12,
                   layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "gpt2": dict(model_type="gpt2", n_embd=48, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3),
    "falcon 40B": dict(model_type="falcon", hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2,
                       new_decoder_architecture=True, alibi=False, initializer_range=0.3, max_position_embeddings=64),
    "palm": dict(model_type="palm", hidden_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=12,
                 intermediate_size=96, max_position_embeddings=64, initializer_range=0.3),
    **{name: FAMILIES[name] for name in ("bloom", "falcon", "gemma2")},
}
EXACT = {"llama", "llama, biases", "mistral", "qwen3", "palm"}  # the others' GELU is summed differently


def made(family: str, dtype=torch.float32, **how) -> LanguageModel:
    t = tokenizer()
    shape = {**{**FAMILIES, **DECODERS}[family], "vocab_size": t.vocab_size, "bos_token_id": t.bos_id, "eos_token_id": t.eos_id}
    model = new(families.read_config(shape), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.normal_(0, 0.3, generator=generator)
    model.set_dtype(dtype, tables=True)
    if how:
        weights.hold(model, **how)
    return LanguageModel(model, t, Path("small"))


@torch.inference_mode()
def logits(loaded: LanguageModel, steps: int = 14) -> list[torch.Tensor]:
    """Of each step of an engine that reads in pieces while it writes."""
    engine, found = LLM(loaded, block=4, step_tokens=9), []
    for prompt in PROMPTS:
        engine.submit(prompt, max_tokens=steps + 1, sampling=GREEDY)
    for _ in range(steps):
        plan = engine.scheduler.plan()
        found.append(engine.runner.run(plan).clone())
        engine.scheduler.computed(plan)
        ends = [chunk for chunk in plan.chunks if chunk.last]
        for chunk, token in zip(ends, found[-1].argmax(-1).tolist()):
            chunk.sequence.tokens.append(token)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", [dict(weights="int8"), dict(weights="int4"), dict(weights="float", steady=True)], ids=str)
@pytest.mark.parametrize("family", DECODERS)
def test_each_number_is_that_of_the_blocks(family, how, dtype):
    loaded = made(family, dtype, **how)
    assert loaded.model.tape is not None
    plain = copy.copy(loaded)
    plain.model = copy.copy(loaded.model)
    plain.model.tape = None
    for ours, theirs in zip(logits(loaded), logits(plain)):
        if family in EXACT:
            assert torch.equal(ours, theirs)
        else:
            # a rounding of a GELU may move a number by one of its 127 steps, where layers take them in 8 bits
            exact = dtype == torch.float32 and how["weights"] == "float"
            assert (ours - theirs).abs().max() <= (1e-4 if exact else 0.1) * theirs.abs().max()


@pytest.mark.parametrize("how", [dict(weights="int8"), dict(weights="float")], ids=str)
def test_plain_generation_and_conversations_go_over_it_too(how):
    loaded = made("qwen3", **how)
    text = loaded.generate(PROMPTS[0], max_tokens=20, greedy=True)
    plain = copy.copy(loaded)
    plain.model = copy.copy(loaded.model)
    plain.model.tape = None
    assert text.ids == plain.generate(PROMPTS[0], max_tokens=20, greedy=True).ids
    kept = KeptStepper(loaded.model)
    for prompt in (PROMPTS[0], PROMPTS[0] + text.text, PROMPTS[3], PROMPTS[0]):
        options = dict(max_tokens=10, sampling=GREEDY)
        (ours,) = generate(loaded.model, loaded.tokenizer, prompt, make_stepper=kept, **options)
        (theirs,) = generate(plain.model, plain.tokenizer, prompt, **options)
        assert ours.ids == theirs.ids
    assert kept.reused


def test_engines_of_one_model_may_run_at_the_same_time():
    loaded = made("llama", weights="int8")
    wanted = [r.ids for r in LLM(loaded).generate(PROMPTS, max_tokens=15, greedy=True)]
    found = [None] * 3

    def write(i: int) -> None:
        found[i] = [r.ids for r in LLM(loaded, step_tokens=5 + i).generate(PROMPTS, max_tokens=15, greedy=True)]

    threads = [threading.Thread(target=write, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 3


def test_the_engine_and_plain_generation_may_take_turns():
    loaded = made("llama", weights="int8")
    wanted = LLM(loaded).generate(PROMPTS[0], max_tokens=9, greedy=True)[0].ids  # in inference mode, the other without
    for _ in range(2):
        assert loaded.generate(PROMPTS[0], max_tokens=9, greedy=True).ids == wanted
        assert LLM(loaded).generate(PROMPTS[0], max_tokens=9, greedy=True)[0].ids == wanted


def test_a_tape_that_could_not_be_written_is_written_the_next_time(monkeypatch):
    from llmwright.engine import tape

    loaded = made("llama", weights="int8")
    wanted = loaded.generate(PROMPTS[3], max_tokens=9, greedy=True).ids
    fresh, count = made("llama", weights="int8"), iter(range(9))

    def short(rows: int, width: int):
        if next(count) == 0:
            raise MemoryError
        return room(rows, width)

    room = tape.room
    monkeypatch.setattr(tape, "room", short)
    with pytest.raises(MemoryError):
        fresh.generate(PROMPTS[3], max_tokens=9, greedy=True)
    assert fresh.generate(PROMPTS[3], max_tokens=9, greedy=True).ids == wanted


def test_what_only_writes_is_not_held_again_saved_or_copied(tmp_path):
    from llmwright.checkpoint import directory, gguf_write

    loaded = made("llama", weights="float")
    for act in (lambda: weights.hold(loaded.model, "int8"), lambda: directory.save(loaded.model, tmp_path / "m"),
                lambda: gguf_write.save(loaded.model, tmp_path / "m.gguf", tokenizer=loaded.tokenizer),
                lambda: copy.deepcopy(loaded.model)):
        with pytest.raises(RequestError, match="load it again"):
            act()
    assert not list(tmp_path.iterdir())
    assert loaded.generate(PROMPTS[0], max_tokens=3, greedy=True).ids


def test_what_has_no_tape_is_computed_by_its_blocks():
    t = tokenizer()
    shape = {**FAMILIES["mixtral"], "vocab_size": t.vocab_size, "bos_token_id": t.bos_id, "eos_token_id": t.eos_id}
    model = new(families.read_config(shape), seed=1).eval()
    weights.hold(model, "int8")
    assert model.tape is None
    loaded = LanguageModel(model, t, Path("small"))
    assert LLM(loaded).generate(PROMPTS[0], max_tokens=5, greedy=True)[0].ids


def test_a_file_in_few_bits_is_held_as_it_is(tmp_path):
    from llmwright import load
    from llmwright.checkpoint import gguf_write
    from llmwright.engine.weights import stored

    loaded = made("llama of whole groups")
    for kind, expected in (("q8_0", "int8"), ("f16", "float"), ("f32", "float"), ("q4_0", "int8")):
        path = tmp_path / f"{kind}.gguf"
        gguf_write.save(loaded.model, path, tokenizer=loaded.tokenizer, kind=kind, pre="gpt-2")
        assert stored(path) == load(path, weights="auto").model.weights == expected
    file, held = load(tmp_path / "q8_0.gguf").model, load(tmp_path / "q8_0.gguf", weights="auto").model
    for theirs, ours in zip(file.blocks, held.blocks):
        assert torch.equal(ours.feed_forward.down.weight.whole(), theirs.feed_forward.down.weight)
