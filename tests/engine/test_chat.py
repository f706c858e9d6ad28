"""A conversation: what was read is kept and changes nothing; turns that no longer fit go; a stop loses nothing."""

import functools
import json
from dataclasses import replace

import pytest
import torch
from small import bias_head, model, tokenizer, translator

import llmwright as lw
from llmwright.checkpoint import directory
from llmwright.engine.chat import SMALL, USUAL, Chat, how
from llmwright.engine.kept import PIECE, KeptStepper, Stopped
from llmwright.engine.language_model import LanguageModel
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.errors import RequestError
from llmwright.model.cache import KVCache
from llmwright.model.config import RopeScaling
from llmwright.tokens.chat_template import ChatTemplate
from llmwright.tokens.tokenizer import Tokenizer

TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role not in ('system', 'user', 'assistant') %}{{ raise_exception('Who is ' + m.role) }}{% endif %}"
    "<{{ m.role }}>{{ m.content | trim }}{{ '<|endoftext|>' if m.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@functools.cache
def words() -> Tokenizer:
    return Tokenizer(tokenizer().tree, {**tokenizer().config, "chat_template": TEMPLATE})


def loaded(context: int = 400, **change) -> LanguageModel:
    return LanguageModel(model(max_position_embeddings=context, **change), words(), "m")


def fresh(made: Chat, max_tokens: int = 12):
    """The answer to the conversation as it is, by a model that read nothing before."""
    ids = made.template.encode(made.messages[:-1], add_generation_prompt=True)
    return made.loaded.run([ids], max_tokens=max_tokens, sampling=GREEDY)[0]


def test_answers_are_those_of_a_fresh_start_and_what_was_read_is_kept():
    made = Chat(loaded(), "Be brief", temperature=0.0, max_tokens=12)
    read = 0
    for question in ("What is os?", "And sys?", "import json  "):
        answer = made.ask(question)
        assert made.messages[-1] == {"role": "assistant", "content": answer.text}
        assert answer.text == fresh(made).text
        assert answer.reused >= read  # all of the prompt before, at least
        read = answer.prompt
    assert answer.reused > 20 and answer.prompt - answer.reused < 50


@torch.no_grad()
def test_a_kept_prefix_gives_the_logits_of_a_fresh_start_whatever_came_between():
    made = model(max_position_embeddings=900)
    kept = KeptStepper(made)
    ids = torch.randint(0, 400, (700,), generator=torch.Generator().manual_seed(1)).tolist()
    texts = [ids[:600], ids[:600] + [5, 6], ids[:10], ids[:3] + [7, 8, 9], ids, ids, ids[:PIECE]]
    reused = []
    for text in texts:
        kept(made, [text], 5)
        logits = kept.prefill()
        assert torch.allclose(logits, made(torch.tensor([text]))[:, -1], atol=1e-4)
        assert torch.allclose(kept.step(torch.tensor([3])), made(torch.tensor([[*text, 3]]))[:, -1], atol=1e-4)
        reused.append(kept.reused)
    assert reused == [0, 600, 9, 3, 3, 699, PIECE - 1]


@torch.no_grad()
def test_angles_that_depend_on_the_length_are_made_anew():
    scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    made = model("llama", max_position_embeddings=64, rope_parameters=scaling)
    assert isinstance(made.config.positions.scaling, RopeScaling)
    kept, ids = KeptStepper(made), torch.randint(0, 400, (100,), generator=torch.Generator().manual_seed(1)).tolist()
    for end in (50, 90, 100):
        kept(made, [ids[:end]], 5)
        assert torch.allclose(kept.prefill(), made(torch.tensor([ids[:end]]))[:, -1], atol=1e-4) and kept.reused == 0


def test_a_cache_that_grows_keeps_what_it_holds():
    cache, config = KVCache(model().config, 1, 4), model().config
    k = torch.randn(1, 3, config.attention.n_kv_heads, config.attention.head_dim)
    for layer in range(config.n_layers):
        cache.append(layer, k + layer, k - layer)
    cache.reserve(9)
    assert cache.capacity == 9 and cache.length == 3
    for i in range(2):
        assert torch.equal(cache.keys[i, :, :3], k + i) and torch.equal(cache.values[i, :, :3], k - i)
    cache.shorten(1)
    cache.shorten(2)
    assert cache.length == 1


# stopping


@pytest.mark.parametrize("after", [0, 1, 2, 5])
def test_an_answer_that_is_stopped_is_kept_and_the_conversation_goes_on(after):
    made, said = Chat(loaded(), temperature=0.0, max_tokens=30), []
    made.ask("What is os?")
    before, whole = list(made.messages), Chat(loaded(), temperature=0.0, max_tokens=30)
    whole.ask("What is os?")
    full = whole.ask("And sys?").text
    calls = iter(range(100))
    answer = made.ask("And sys?", on_text=said.append, stopped=lambda: next(calls) >= after)
    assert answer.finish_reason == "stopped" and answer.text == "".join(said) and full.startswith(answer.text)
    if after == 0:  # before the first word: neither question nor answer
        assert answer.text == "" and made.messages == before
    else:
        assert made.messages[-1] == {"role": "assistant", "content": answer.text}
        made.undo()
    assert made.ask("And sys?").text == full


def test_a_long_prompt_is_stopped_between_its_pieces():
    made = model(max_position_embeddings=2000)
    kept, calls = KeptStepper(made), []
    kept.stopped = lambda: calls.append(1) or len(calls) > 2
    ids = [5] * (4 * PIECE)
    with pytest.raises(Stopped):
        kept(made, [ids], 1).prefill()
    assert len(kept.ids) == 2 * PIECE == kept.cache.length
    kept.stopped = lambda: False
    assert torch.allclose(kept(made, [ids], 1).prefill(), made(torch.tensor([ids]))[:, -1], atol=1e-4)
    assert kept.reused == 2 * PIECE


def test_an_error_in_the_middle_of_a_layer_does_not_spoil_what_is_kept(monkeypatch):
    made = Chat(loaded(), temperature=0.0, max_tokens=9)
    made.ask("What is os?")
    last, before = made.loaded.model.blocks[-1], list(made.messages)
    forward = last.forward
    monkeypatch.setattr(last, "forward", lambda *a: forward(*a) and None or 1 / 0)
    with pytest.raises((ZeroDivisionError, RuntimeError)):
        made.ask("And sys?")
    monkeypatch.undo()
    assert made.messages == before
    assert made.ask("And sys?").text == fresh(made, 9).text


# the context


def test_the_oldest_turns_go_when_the_context_is_full_and_the_system_message_stays():
    made = Chat(loaded(context=150), "Be brief", temperature=0.0, max_tokens=10)
    dropped = 0
    for i in range(12):
        answer = made.ask(f"Question {i}, what is it?")
        dropped += answer.dropped
        assert answer.prompt + 10 <= 150
        ids = made.template.encode([made.messages[0], *made.messages[1 + made.first : -1]], add_generation_prompt=True)
        assert len(ids) == answer.prompt
        assert answer.text == made.loaded.run([ids], max_tokens=10, sampling=GREEDY)[0].text
    assert dropped > 2 and made.first == 2 * dropped and len(made.messages) == 25
    assert made.messages[1 + made.first]["role"] == "user"
    while len(made.messages) > 1:
        made.undo()
    assert made.ask("Question 0, what is it?").dropped == 0


def test_several_turns_go_at_once_so_that_the_next_turn_need_not_drop_again():
    made = Chat(loaded(context=300), temperature=0.0, max_tokens=5)
    drops = [made.ask(f"Question {i}").dropped for i in range(40)]
    assert max(drops) > 1 and 0 < sum(d > 0 for d in drops) < 15


def test_a_message_that_does_not_fit_alone_is_one_line_and_not_kept():
    made = Chat(loaded(context=100), temperature=0.0)
    made.ask("Hi")
    before = list(made.messages)
    with pytest.raises(RequestError, match="this message has .* tokens, and the model reads 100 with its answer"):
        made.ask("word " * 200)
    assert made.messages == before and made.ask("Hi again").text is not None


# what can be done with it


def test_another_answer_is_drawn_anew_and_a_seed_gives_the_same_conversation():
    def talk(**options):
        made = Chat(loaded(), max_tokens=12, temperature=1.5, seed=3, **options)
        return [made.ask("What is os?").text, made.again().text, made.again().text, made.ask("And sys?").text]

    texts = talk()
    assert talk() == texts and len(set(texts)) == 4
    made = Chat(loaded(), max_tokens=12, temperature=1.5, seed=3)
    made.ask("What is os?")
    answer = made.again()
    assert answer.reused == answer.prompt - 1 and [m["role"] for m in made.messages] == ["user", "assistant"]


def test_undo_and_clear_forget():
    made = Chat(loaded(), "Be brief", temperature=0.0, max_tokens=5)
    for act in (made.undo, made.again):
        with pytest.raises(RequestError, match="nothing was asked yet"):
            act()
    made.ask("one")
    made.ask("two")
    assert made.undo() == "two" and [m["content"] for m in made.messages][:2] == ["Be brief", "one"]
    made.clear()
    assert made.messages == [{"role": "system", "content": "Be brief"}]
    made.set_system(None)
    assert made.messages == [] and made.tokens() == 0


def test_a_conversation_is_saved_in_the_usual_form_and_goes_on(tmp_path):
    made = Chat(loaded(), "Be brief", temperature=0.0, max_tokens=8)
    made.ask("What is os? 🙂")
    assert not made.save(tmp_path / "talk.json") and made.save(tmp_path / "talk.json")  # the second in its place
    assert json.loads((tmp_path / "talk.json").read_text())["messages"] == made.messages
    other = Chat(loaded(), temperature=0.0, max_tokens=8)
    other.load(tmp_path / "talk.json")
    assert other.system == "Be brief" and other.ask("And sys?").text == made.ask("And sys?").text
    (tmp_path / "list.json").write_text(json.dumps([{"role": "user", "content": "x"}]))
    other.load(tmp_path / "list.json")
    assert other.messages == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("content, said", [
    ("{", "not a saved conversation"), ("3", "not a conversation"), ('{"messages": 3}', "not a conversation"),
    ('[{"role": "robot", "content": "x"}]', "Who is robot"), ('[{"role": "user"}]', "has no content"),
    ("[" * 100_000, "not a saved"),
])
def test_a_file_that_is_no_conversation_is_one_line_and_changes_nothing(tmp_path, content, said):
    (tmp_path / "x.json").write_text(content)
    made = Chat(loaded(), temperature=0.0, max_tokens=5)
    made.ask("one")
    before = list(made.messages)
    with pytest.raises(RequestError, match=said) as error:
        made.load(tmp_path / "x.json")
    assert "x.json" in str(error.value) and "\n" not in str(error.value) and made.messages == before
    with pytest.raises(RequestError, match="nowhere.json: cannot be read"):
        made.load(tmp_path / "nowhere.json")


def test_settings_change_between_turns_and_wrong_ones_change_nothing():
    made = Chat(loaded(), max_tokens=5)
    assert made.sampling == SMALL
    made.set("temperature", 0.0)
    made.set("top_k", 40) if not made.sampling.greedy else None
    for name, value, said in (("temperature", -1.0, "temperature -1.0"), ("max_tokens", 0, "max_tokens 0"),
                              ("tempo", 1.0, "tempo"), ("beams", 4, "beams is for generate"), ("seed", -1, "seed -1")):
        with pytest.raises(RequestError, match=said):
            made.set(name, value)
    assert made.sampling.greedy and made.max_tokens == 5
    made.set("greedy", True)
    made.set("temperature", 0.5)  # the one said last counts
    assert made.sampling.temperature == 0.5


def test_a_system_message_that_the_template_refuses_changes_nothing():
    made = Chat(loaded(), temperature=0.0, max_tokens=5)
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}x"
    made.template = ChatTemplate(source, made.loaded.tokenizer, "m")
    with pytest.raises(RequestError, match="refuses these messages: No system"):
        made.set_system("Be brief")
    assert made.messages == []


# how the model is asked


def test_one_call_answers_by_the_template_and_ends_where_a_turn_ends():
    made = loaded()
    messages = [{"role": "user", "content": "What is os?"}]
    ids = words().encode("<user>What is os?\n<assistant>", specials=True)
    wanted = made.run([ids], max_tokens=9, sampling=GREEDY)[0]
    said = []
    answer = made.chat(messages, max_tokens=9, greedy=True, on_text=said.append)
    assert (answer.text, answer.ids) == (wanted.text, wanted.ids) and "".join(said) == answer.text


def test_an_unfinished_answer_goes_on():
    made = loaded()
    ids = words().encode("<user>What is os?\n<assistant>A module", specials=True)
    messages = [{"role": "user", "content": "What is os?"}, {"role": "assistant", "content": "A module"}]
    assert made.chat(messages, max_tokens=9, greedy=True).ids == made.run([ids], max_tokens=9, sampling=GREEDY)[0].ids


def test_the_end_of_a_turn_ends_an_answer_though_the_model_calls_another_token_its_end():
    turn = words().special_tokens["<|endoftext|>"]
    made = bias_head(model(eos_token_id=None, max_position_embeddings=400), [words().encode(">")[-1], turn, 40])
    own = Tokenizer(words().tree, {"chat_template": TEMPLATE, "eos_token": "<|pad|>"})
    answer = LanguageModel(made, own, "m").chat([{"role": "user", "content": "x"}], greedy=True, max_tokens=5)
    assert answer.finish_reason == "stop" and answer.ids == [turn]


def test_the_makers_advice_is_taken_unless_told_otherwise(tmp_path):
    directory.save(model(), tmp_path / "m", tokenizer=words())
    file = tmp_path / "m" / "generation_config.json"
    plain = json.loads(file.read_text())
    told = {"do_sample": True, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05}
    file.write_text(json.dumps({**plain, **told}))
    made = lw.load(tmp_path / "m")
    assert how(made, {})[0] == Sampling(temperature=0.6, top_k=20, repetition_penalty=1.05)
    assert how(made, {"temperature": 0.9, "repetition_penalty": 1.0})[0] == Sampling(temperature=0.9, top_k=20)
    for odd in ({**told, "do_sample": False}, {**told, "temperature": "hot"}, {**told, "top_p": 7}):
        file.write_text(json.dumps({**plain, **odd}))
        assert how(lw.load(tmp_path / "m"), {})[0] == SMALL
    made.model.parameters = lambda: [torch.empty(2_000_000_000, device="meta")]
    assert how(replace(made, advice={}), {})[0] == USUAL


@pytest.mark.parametrize("made, said", [
    (lambda: LanguageModel(model(), tokenizer(), "runs/x"), 'has no chat template: .* llmwright generate runs/x "Once'),
    (lambda: LanguageModel(translator(), words(), "m"), "is an encoder-decoder"),
])
def test_a_model_that_does_not_converse_is_one_line(made, said):
    with pytest.raises(RequestError, match=said):
        Chat(made())
    with pytest.raises(RequestError, match=said):
        made().chat([{"role": "user", "content": "x"}])


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_auto_takes_a_precision_that_there_is(tmp_path, stored):
    directory.save(model(), tmp_path / "m", tokenizer=words())
    assert lw.load(tmp_path / "m", dtype="auto").model.dtype in (torch.float32, torch.bfloat16)


def test_smollm2_answers_over_several_turns(smollm2):
    made = Chat(lw.load(smollm2), temperature=0.0, max_tokens=24)
    assert "Paris" in made.ask("What is the capital of France?").text
    answer = made.ask("Is it a large city? Answer yes or no.")
    assert answer.text == fresh(made, 24).text and answer.reused > 40
