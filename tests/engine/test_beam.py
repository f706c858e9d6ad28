"""Beam search finds what transformers' finds, for decoders and encoder-decoders, in whatever company."""

import pytest
import torch
import transformers
from small import TRANSLATORS, model, tokenizer, translator

from llmwright.checkpoint import directory
from llmwright.engine.beam import Beams
from llmwright.engine.generate import generate
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.errors import RequestError

PROMPTS = ["def main():\n", "import os", "class Größe(object):\n    x = '🙂'\n    y = [1, 2, 3]\n", "x"]
FAMILIES = ["llama", "gpt2", *TRANSLATORS]
SEARCHES = [
    dict(num_beams=4), dict(num_beams=3, length_penalty=2.0), dict(num_beams=4, early_stopping=True),
    dict(num_beams=5, length_penalty=-1.0, early_stopping="never"), dict(num_beams=2, early_stopping="never"),
    dict(num_beams=3, min_new_tokens=6, repetition_penalty=1.5), dict(num_beams=3, bad_words_ids=[[46], [74, 367]]),
]


def made(family: str):
    """Some of its texts end before their limit, and some do not."""
    ours = translator(family) if family in TRANSLATORS else model(family)
    with torch.no_grad():
        ours.head_weight[tokenizer().eos_id] *= {"gpt2": 1.5, "llama": 1.5, "t5": 1.5, "marian": 3.0}[family]
    return ours


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Our model and transformers' of each family."""
    found = {}
    for family in FAMILIES:
        ours, path = made(family), tmp_path_factory.mktemp("model") / family
        directory.save(ours, path)
        auto = transformers.AutoModelForSeq2SeqLM if family in TRANSLATORS else transformers.AutoModelForCausalLM
        found[family] = ours, auto.from_pretrained(path).eval()
    return found


def by_transformers(theirs, family: str, options: dict) -> tuple[list[list[int]], list[float]]:
    """The ids of every beam of every prompt, and their scores."""
    t, right = tokenizer(), family in TRANSLATORS
    ids = [[*t.encode(p), t.eos_id] if right else [t.bos_id, *t.encode(p)] for p in PROMPTS]
    longest = max(map(len, ids))

    def padded(row: list[int], filler: int) -> list[int]:
        rest = [filler] * (longest - len(row))
        return row + rest if right else rest + row

    with torch.no_grad():
        done = theirs.generate(
            torch.tensor([padded(row, t.pad_id) for row in ids]),
            attention_mask=torch.tensor([padded([1] * len(row), 0) for row in ids]), max_new_tokens=16, max_length=None,
            do_sample=False, pad_token_id=t.pad_id, eos_token_id=t.eos_id, num_return_sequences=options["num_beams"],
            return_dict_in_generate=True, output_scores=True, **options,
        )
    texts = [row[1:] if right else row[longest:] for row in done.sequences.tolist()]
    texts = [row[: row.index(t.eos_id) + 1] if t.eos_id in row else row for row in texts]
    return texts, done.sequences_scores.tolist()


@pytest.mark.parametrize("options", SEARCHES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_beam_is_that_of_transformers(both, family, options):
    ours, theirs = both[family]
    wanted, scores = by_transformers(theirs, family, options)
    beams = Beams(options["num_beams"], options.get("length_penalty", 1.0), options.get("early_stopping", False))
    sampling = Sampling(
        0.0, repetition_penalty=options.get("repetition_penalty", 1.0), min_tokens=options.get("min_new_tokens", 0),
        bad_words=options.get("bad_words_ids", ()),
    )
    results = generate(ours, tokenizer(), PROMPTS, max_tokens=16, sampling=sampling, beams=beams, n=beams.width)
    assert [r.ids for r in results] == wanted
    # weights this large make attention sharp, where rounding shows
    assert [r.score for r in results] == pytest.approx(scores, rel=1e-3, abs=1e-4)
    assert len({tuple(r.ids) for r in results}) > len(results) / 2


def test_the_cases_above_hold_texts_that_end_and_texts_that_do_not(both):
    for family in FAMILIES:
        texts = generate(both[family][0], tokenizer(), PROMPTS, max_tokens=16, sampling=GREEDY, beams=Beams(4), n=4)
        assert len({r.finish_reason for r in texts}) == 2, family


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_search_does_not_depend_on_its_neighbours(both, family):
    ours = both[family][0]
    together = generate(ours, tokenizer(), PROMPTS * 2, max_tokens=16, sampling=GREEDY, beams=Beams(3), n=2)
    for i, prompt in enumerate(PROMPTS):
        alone = generate(ours, tokenizer(), prompt, max_tokens=16, sampling=GREEDY, beams=Beams(3), n=2)
        assert [r.ids for r in alone] == [r.ids for r in together[2 * i : 2 * i + 2]]
    in_turn = generate(ours, tokenizer(), PROMPTS, max_tokens=16, sampling=GREEDY, beams=Beams(3), n=2, batch=1)
    assert [r.ids for r in in_turn] == [r.ids for r in together[:8]]


@pytest.mark.parametrize("family", ["gpt2", "marian"])
@torch.no_grad()
def test_a_beams_log_probs_are_the_models_own_and_add_up_to_its_score(both, family):
    ours, t = both[family][0], tokenizer()
    result = generate(ours, t, "import os", max_tokens=9, sampling=GREEDY, beams=Beams(3, 0.7), top_log_probs=2)[0]
    if family == "marian":
        source = torch.tensor([[*t.encode("import os"), t.eos_id]])
        logits = ours(source, torch.tensor([[t.pad_id, *result.ids[:-1]]]))[0]
    else:
        start = [t.bos_id, *t.encode("import os")]
        logits = ours(torch.tensor([start + result.ids]))[0, len(start) - 1 : -1]
    wanted = logits.log_softmax(-1)
    assert result.log_probs == pytest.approx(wanted[range(len(result.ids)), result.ids].tolist(), abs=1e-4)
    assert result.score == pytest.approx(sum(result.log_probs) / len(result.ids) ** 0.7, abs=1e-4)
    best = wanted.topk(2).values
    told = [[p for _, p in place] for place in result.top_log_probs]
    assert told == [pytest.approx(row.tolist(), abs=1e-4) for row in best]


def test_one_beam_is_greedy(both):
    for family in FAMILIES:
        one = generate(both[family][0], tokenizer(), PROMPTS, max_tokens=12, sampling=GREEDY, beams=Beams(1))
        greedy = generate(both[family][0], tokenizer(), PROMPTS, max_tokens=12, sampling=GREEDY)
        assert [r.ids for r in one] == [r.ids for r in greedy]


def test_a_stop_string_finishes_a_beam(both):
    ours, t = both["llama"][0], tokenizer()
    free = generate(ours, t, "import os", max_tokens=12, sampling=GREEDY, beams=Beams(2))[0]
    stop = next(text for i in free.ids[1:-1] if (text := t.decode([i])).isalpha())
    results = generate(ours, t, "import os", max_tokens=12, sampling=GREEDY, beams=Beams(2), stop=[stop], n=2)
    stopped = [r for r in results if stop in t.decode(r.ids)]
    assert stopped and all(stop not in r.text for r in results)
    assert all(r.finish_reason == "stop" and stop not in t.decode(r.ids[:-1]) for r in stopped)


def test_a_search_ends_at_the_end_of_the_context(both):
    prompts = [[5] * 60, [5] * 3]
    short, long = generate(both["llama"][0], tokenizer(), prompts, max_tokens=20, sampling=GREEDY, beams=Beams(3))
    assert len(short.ids) <= 4 and len(long.ids) <= 20


def test_streaming_gives_the_best_text_once_it_is_known(both):
    pieces = []
    result = generate(
        both["t5"][0], tokenizer(), "import os", max_tokens=8, sampling=GREEDY, beams=Beams(3),
        on_text=lambda i, piece: pieces.append(piece),
    )[0]
    assert "".join(pieces) == result.text


def test_more_texts_than_beams_are_refused():
    with pytest.raises(RequestError, match="n 4 is more than the 3 beams"):
        generate(model(), tokenizer(), "x", beams=Beams(3), n=4)
