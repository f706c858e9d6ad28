"""What `generate` writes: the same as transformers, alone and in company, and no further than it may."""

import pytest
import torch
import transformers
from small import SHAPES, bias_head, model, tokenizer

from llmwright.checkpoint import directory
from llmwright.engine import prompt as module
from llmwright.engine.generate import generate
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.errors import RequestError, WorkError
from llmwright.tokens.tokenizer import Tokenizer

PROMPTS = ["def main():\n", "import os", "", "class Größe(object):\n    x = '🙂'\n    y = [1, 2, 3]\n", "x"]


def no_end(made):
    """So that every text goes on to its limit."""
    with torch.no_grad():
        made.head_weight[tokenizer().eos_id] = 0
    return made


@pytest.mark.parametrize("family", SHAPES)
def test_greedy_text_is_that_of_transformers(family, tmp_path):
    ours = model(family)
    directory.save(ours, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    written = set()
    for prompt in PROMPTS:
        ids = [tokenizer().bos_id, *tokenizer().encode(prompt)]
        wanted = theirs.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=24, do_sample=False,
            pad_token_id=0,
        )[0, len(ids) :].tolist()
        result = generate(ours, tokenizer(), prompt, max_tokens=24, sampling=GREEDY)[0]
        assert result.ids == wanted
        written |= set(wanted)
        shown = wanted[:-1] if wanted[-1] == tokenizer().eos_id else wanted
        assert result.text == tokenizer().decode(shown)
    assert len(written) > 10  # texts, not one token over and over


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=5), Sampling(temperature=1.5, top_p=0.9, seed=5)])
def test_a_prompts_text_does_not_depend_on_its_neighbours(family, sampling):
    made = model(family)
    together = generate(made, tokenizer(), PROMPTS, max_tokens=30, sampling=sampling)
    for prompt, result in zip(PROMPTS, together):
        alone = generate(made, tokenizer(), prompt, max_tokens=30, sampling=sampling)[0]
        assert (result.prompt, result.ids, result.text, result.finish_reason) == (
            prompt, alone.ids, alone.text, alone.finish_reason)
        assert result.log_probs == pytest.approx(alone.log_probs, abs=1e-4)
    in_pairs = generate(made, tokenizer(), PROMPTS, max_tokens=30, sampling=sampling, batch=2)
    assert [r.ids for r in in_pairs] == [r.ids for r in together]


def test_rows_that_end_early_leave_the_others_as_they_were():
    """Many rows of different lengths, so that the batch is halved on the way."""
    made = model("llama")
    with torch.no_grad():
        made.head_weight[tokenizer().eos_id] *= 4  # texts that end here and there
    prompts = [f"{'x = 1  # ' * (i % 5)}{i}" for i in range(16)]
    sampling = Sampling(temperature=1.2, seed=2)
    results = generate(made, tokenizer(), prompts, max_tokens=40, sampling=sampling)
    assert len({len(r.ids) for r in results}) > 4
    for prompt, result in zip(prompts, results):
        assert generate(made, tokenizer(), prompt, max_tokens=40, sampling=sampling)[0].ids == result.ids


def test_a_seed_gives_the_same_text_again_and_another_seed_another():
    made = no_end(model())
    texts = [generate(made, tokenizer(), "a", max_tokens=12, sampling=Sampling(seed=s))[0].text for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    free = {generate(made, tokenizer(), "a", max_tokens=12)[0].text for _ in range(3)}
    assert len(free) == 3


def test_the_same_prompt_twice_gets_two_draws_that_a_seed_gives_again():
    made = no_end(model())
    first, second = generate(made, tokenizer(), ["a", "a"], max_tokens=12, sampling=Sampling(seed=1))
    assert first.text != second.text
    again = generate(made, tokenizer(), ["a", "a", "b"], max_tokens=12, sampling=Sampling(seed=1))
    assert [r.text for r in again[:2]] == [first.text, second.text]


def test_several_texts_of_a_prompt_are_those_of_the_prompt_given_several_times():
    made, sampling = no_end(model()), Sampling(seed=1)
    several = generate(made, tokenizer(), ["a", "b"], max_tokens=12, n=3, sampling=sampling)
    again = generate(made, tokenizer(), ["a"] * 3 + ["b"] * 3, max_tokens=12, sampling=sampling)
    assert [r.ids for r in several] == [r.ids for r in again]
    assert len({r.text for r in several}) == 6


def test_a_prompt_goes_through_the_model_once_however_many_texts_it_gets(monkeypatch):
    made, rows = no_end(model()), []
    hidden = type(made).hidden

    def counted(self, ids, **options):
        rows.append(ids.shape)
        return hidden(self, ids, **options)

    monkeypatch.setattr(type(made), "hidden", counted)
    generate(made, tokenizer(), ["import os", "x"], max_tokens=3, n=4)
    assert [tuple(shape)[0] for shape in rows] == [2, 8, 8]


def test_sampling_leaves_the_callers_random_numbers_and_training_mode_alone():
    made = model()
    made.train()
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    generate(made, tokenizer(), PROMPTS, max_tokens=5)
    assert torch.equal(torch.rand(3), wanted) and made.training


@torch.no_grad()
def test_log_probs_are_the_models_own():
    made = model()
    sampling = Sampling(temperature=0.5, top_k=5, seed=0)
    result = generate(made, tokenizer(), "import os", max_tokens=10, sampling=sampling)[0]
    ids = [tokenizer().bos_id, *tokenizer().encode("import os")]
    wanted = made(torch.tensor([ids + result.ids])).log_softmax(-1)[0, len(ids) - 1 : -1]
    wanted = wanted.gather(1, torch.tensor(result.ids)[:, None])[:, 0]
    assert result.log_probs == pytest.approx(wanted.tolist(), abs=1e-4)


@torch.no_grad()
def test_the_likeliest_tokens_are_told_with_their_log_probs():
    made, ids = model(), [tokenizer().bos_id, *tokenizer().encode("import os")]
    sampling = Sampling(repetition_penalty=2.0, seed=0)  # which changes what is drawn, not what is told
    result = generate(made, tokenizer(), "import os", max_tokens=4, sampling=sampling, top_log_probs=3)[0]
    wanted = made(torch.tensor([ids + result.ids])).log_softmax(-1)[0, len(ids) - 1 : -1].topk(3)
    assert [[i for i, _ in place] for place in result.top_log_probs] == wanted.indices.tolist()
    told = [[p for _, p in place] for place in result.top_log_probs]
    assert told == [pytest.approx(row, abs=1e-4) for row in wanted.values.tolist()]
    assert generate(made, tokenizer(), "x", max_tokens=2)[0].top_log_probs == []


def test_each_position_is_computed_once(monkeypatch):
    made = no_end(model())
    widths = []
    hidden = type(made).hidden

    def counted(self, ids, **options):
        widths.append(ids.shape[1])
        return hidden(self, ids, **options)

    monkeypatch.setattr(type(made), "hidden", counted)
    result = generate(made, tokenizer(), "import os", max_tokens=6)[0]
    prompt = 1 + len(tokenizer().encode("import os"))
    assert widths == [prompt, 1, 1, 1, 1, 1] and len(result.ids) == 6


def test_generation_ends_at_the_end_of_the_context():
    made = no_end(model())
    for length in (63, 40):
        result = generate(made, tokenizer(), [[5] * length], max_tokens=1000, sampling=GREEDY)[0]
        assert len(result.ids) == 64 - length and result.finish_reason == "length"
    short, long = generate(made, tokenizer(), [[5] * 3, [5] * 60], max_tokens=1000, sampling=GREEDY)
    assert len(short.ids) == 61 and len(long.ids) == 4


@pytest.mark.parametrize("family", SHAPES)
def test_a_row_at_the_end_of_its_context_does_not_disturb_one_that_goes_on(family):
    made = no_end(model(family))
    prompts = [[7] * 62, [9, 8, 7], [3] * 30]
    together = generate(made, tokenizer(), prompts, max_tokens=60, sampling=GREEDY)
    assert [r.ids for r in together] == [
        generate(made, tokenizer(), [p], max_tokens=60, sampling=GREEDY)[0].ids for p in prompts]


def test_the_end_token_ends_a_text_and_is_not_part_of_it():
    t = tokenizer()
    ids = t.encode("ab")
    made = bias_head(model("llama"), [t.bos_id, *ids, t.eos_id])
    result = generate(made, t, "", sampling=GREEDY)[0]
    assert (result.text, result.ids, result.finish_reason) == ("ab", [*ids, t.eos_id], "stop")


def test_a_stop_token_ends_a_text_by_its_id_or_its_text():
    t = tokenizer()
    ids = [i for letter in "abc" for i in t.encode(letter)]
    made = bias_head(model("llama"), [t.bos_id, *ids])
    for stop in ([ids[2]], [t.decode([ids[2]])], ids[2]):
        result = generate(made, t, "", sampling=GREEDY, stop_tokens=stop)[0]
        assert (result.text, result.ids, result.finish_reason) == ("ab", ids, "stop")


def test_no_end_comes_before_min_tokens():
    t = tokenizer()
    made = bias_head(model("llama"), [t.bos_id, *t.encode("ab"), t.eos_id])
    result = generate(made, t, "", sampling=Sampling(0.0, min_tokens=5), max_tokens=9)[0]
    assert t.eos_id not in result.ids[:5] and len(result.ids) >= 5


def test_bad_words_are_not_written_and_biases_are():
    t = tokenizer("bytes")
    made = bias_head(model("llama", vocab_size=t.vocab_size), [t.bos_id, *t.encode("abcdefgh"), t.eos_id])
    for sampling, text in ((GREEDY, "abcdefgh"), (Sampling(0.0, logit_bias={"x": 1e4}), "xxxxxxxx")):
        assert generate(made, t, "", sampling=sampling, max_tokens=8)[0].text == text
    written = generate(made, t, "", sampling=Sampling(0.0, bad_words=["bcd"]), max_tokens=8)[0].text
    assert written.startswith("abc") and "bcd" not in written


def test_a_stop_string_is_found_across_tokens_and_is_not_part_of_the_text():
    t = tokenizer("bytes")
    made = bias_head(model("llama", vocab_size=t.vocab_size), [t.bos_id, *t.encode("abcdefgh")])
    pieces = []
    result = generate(made, t, "", sampling=GREEDY, stop=["xyz", "def"], on_text=lambda i, text: pieces.append(text))[0]
    assert (result.text, result.finish_reason) == ("abc", "stop")
    assert "".join(pieces) == "abc"  # nothing of a stop string was shown


def test_text_comes_in_whole_characters():
    t = tokenizer("bytes")
    text = "aé你🙂"
    made = bias_head(model("llama", vocab_size=t.vocab_size), [t.bos_id, *t.encode(text), t.eos_id])
    pieces = []
    result = generate(made, t, "", sampling=GREEDY, on_text=lambda i, piece: pieces.append(piece))[0]
    assert result.text == text and pieces == list(text)


def test_streamed_pieces_are_the_text():
    pieces = {i: "" for i in range(len(PROMPTS))}

    def on_text(i, piece):
        assert piece
        pieces[i] += piece

    results = generate(model(), tokenizer(), PROMPTS, max_tokens=25, sampling=Sampling(seed=4), on_text=on_text)
    assert [pieces[i] for i in range(len(PROMPTS))] == [r.text for r in results]


def test_ids_that_no_text_stands_for_are_never_chosen():
    t = tokenizer()
    made = model("llama", vocab_size=t.vocab_size + 30)
    with torch.no_grad():
        made.head.weight[t.vocab_size :] *= 50
    result = generate(made, t, "a", max_tokens=30, sampling=Sampling(seed=1))[0]
    assert max(result.ids) < t.vocab_size


@pytest.mark.parametrize("said, first", [
    ({"add_bos_token": True}, True), ({"add_bos_token": False}, False), ({}, None),
])
def test_a_text_begins_as_the_tokenizers_files_say(said, first):
    """By tokenizer_config.json, else by tokenizer.json's template (ours has the token, GPT-2's has not)."""
    t = tokenizer()
    for post_processor in (t.tree["post_processor"], None):
        other = Tokenizer({**t.tree, "post_processor": post_processor}, {**t.config, **said})
        ids = module.prompt_ids(model(), other, "import os")
        assert (ids[0] == t.bos_id) == (bool(post_processor) if first is None else first)
        assert module.prompt_ids(model(), other, "") == [t.bos_id]  # something must be there


def test_special_tokens_written_in_a_prompt_stay_text():
    ids = module.prompt_ids(model(), tokenizer(), "<|endoftext|>")
    assert ids[0] == tokenizer().bos_id and tokenizer().bos_id not in ids[1:]


@pytest.mark.parametrize("prompt, options, said", [
    ("x = 1 " * 100, {}, "context 64"),
    ([[5] * 64], {}, "with no room for another"),
    ([[]], {}, "the prompt is empty"),
    ([[10**6]], {}, "not this model's"),
    ("x", {"max_tokens": 0}, "max_tokens 0"),
    ("x", {"stop": [""]}, "stop string is empty"), ("x", {"n": 0}, "n 0"),
    ("x", {"batch": 0}, "batch 0"), ("x", {"batch": -1}, "batch -1"), ("x", {"batch": 2.5}, "batch 2.5"),
    ("x", {"top_log_probs": 101}, "top_log_probs 101"),
    ("x", {"stop_tokens": ["def main"]}, "stop_tokens: 'def main' is"),
    ("x = 1 " * 100, {}, "shorten it to 63 tokens, use a model with a longer context, or let its oldest tokens go"),
    ("x", {"sampling": Sampling(bad_words=[[i] for i in range(450)])}, "leave no token to choose"),
])
def test_a_wrong_request_is_one_clear_line(prompt, options, said):
    with pytest.raises(RequestError, match=said) as caught:
        generate(model(), tokenizer(), prompt, **options)
    assert "\n" not in str(caught.value)


def test_a_damaged_model_is_said_to_be_one():
    made = model()
    with torch.no_grad():
        made.norm.weight[0] = torch.nan
    with pytest.raises(WorkError, match="not finite"):
        generate(made, tokenizer(), "x")


def test_no_prompts_give_no_texts():
    assert generate(model(), tokenizer(), []) == []
