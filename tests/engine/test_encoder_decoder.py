"""What an encoder-decoder writes for a source: the same as transformers, alone and in company."""

import pytest
import torch
import transformers
from small import TRANSLATORS, tokenizer, translator

from llmwright.checkpoint import directory
from llmwright.engine.generate import generate
from llmwright.engine.prompt import prompt_ids
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.errors import RequestError

SOURCES = ["def main():\n", "import os", "class Größe(object):\n    x = '🙂'\n    y = [1, 2, 3]\n", "x"]


@pytest.mark.parametrize("penalty", [1.0, 1.7])
@pytest.mark.parametrize("family", TRANSLATORS)
def test_greedy_text_is_that_of_transformers(family, penalty, tmp_path):
    t, written, texts = tokenizer(), set(), []
    for seed in (1, 2, 3):  # the tokenizer is of this Python's own source: one model alone may say little
        ours = translator(family, seed)
        with torch.no_grad():
            ours.head_weight[t.eos_id] *= {"t5": 1.5, "marian": 3.0}[family]  # some texts end
        directory.save(ours, tmp_path / str(seed))
        theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / str(seed)).eval()
        results = generate(ours, t, SOURCES, max_tokens=20, sampling=Sampling(0.0, repetition_penalty=penalty))
        for source, result in zip(SOURCES, results):
            ids = [*t.encode(source), t.eos_id]
            told = theirs.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=20, max_length=None,
                do_sample=False, repetition_penalty=penalty, output_scores=True, return_dict_in_generate=True,
            )
            wanted = told.sequences[0, 1:].tolist()  # without the start token
            at = next((i for i, (a, b) in enumerate(zip(result.ids, wanted)) if a != b), None)
            if at is not None:  # only where two tokens are as good as equal
                scores = told.scores[at][0]
                assert abs(scores[result.ids[at]] - scores[wanted[at]]) < 1e-3 * scores[wanted[at]].abs()
                continue
            assert result.ids == wanted
            assert result.text == t.decode(i for i in wanted if i != t.eos_id) and result.prompt == source
            written |= set(wanted)
        texts.append(len({tuple(r.ids) for r in results}))
    assert len(written) > 8 and max(texts) > 2  # the source matters


@pytest.mark.parametrize("family", TRANSLATORS)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=5), Sampling(1.5, top_p=0.9, seed=5)])
def test_a_sources_text_does_not_depend_on_its_neighbours(family, sampling):
    made = translator(family)
    together = generate(made, tokenizer(), SOURCES, max_tokens=20, sampling=sampling)
    for source, result in zip(SOURCES, together):
        alone = generate(made, tokenizer(), source, max_tokens=20, sampling=sampling)[0]
        assert (result.ids, result.finish_reason) == (alone.ids, alone.finish_reason)
        assert result.log_probs == pytest.approx(alone.log_probs, abs=1e-3)


def test_the_source_is_closed_by_the_end_token_and_the_text_begins_with_the_start_token():
    t = tokenizer()
    ids = prompt_ids(translator(), t, "import os")
    assert ids == [*t.encode("import os"), t.eos_id]
    made = translator(decoder_start_token_id=7)
    result = generate(made, t, "import os", max_tokens=1, sampling=GREEDY)[0]
    with torch.no_grad():
        assert result.ids == [int(made(torch.tensor([ids]), torch.tensor([[7]]))[0, -1].argmax())]


def test_a_text_ends_at_the_end_of_the_context_where_there_is_one():
    """Sinusoidal positions: the model's context. Relative ones have no last position."""
    made = translator("marian")
    with torch.no_grad():
        made.embed.weight[tokenizer().eos_id] = 0
    assert len(generate(made, tokenizer(), "x", max_tokens=90, sampling=GREEDY)[0].ids) == 63
    with pytest.raises(RequestError, match="65 tokens and the model's context 64: shorten it to 64 tokens"):
        generate(made, tokenizer(), [[5] * 65])
    assert generate(translator("t5"), tokenizer(), [[5] * 65], max_tokens=3, sampling=GREEDY)[0].ids


def test_an_empty_source_is_one_clear_line():
    for empty in ("", []):
        with pytest.raises(RequestError, match="the prompt is empty: give some text"):
            generate(translator(), tokenizer(), [empty])
