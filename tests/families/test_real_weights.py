"""SmolLM2-135M-Instruct, from its 4-bit GGUF file: what we read, written as a directory, is the same model in transformers."""

import pytest
import torch
import transformers
from table import record

import llmwright as lw
from llmwright.checkpoint import directory
from llmwright.engine.generate import generate
from llmwright.engine.sampler import GREEDY


@pytest.mark.network
@torch.no_grad()
def test_smollm2_gives_the_same_logits_and_greedy_text_in_transformers(smollm2, tmp_path):
    loaded = lw.load(smollm2)
    directory.save(loaded.model, tmp_path / "m", tokenizer=loaded.tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    text = "The capital of France is Paris. The capital of Germany is"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert ids[0].tolist() == [int(i) for i in loaded.tokenizer.encode(text)]
    ours, wanted = loaded.model(ids), theirs(ids).logits
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)
    made = generate(loaded.model, loaded.tokenizer, [ids[0].tolist()], max_tokens=20, sampling=GREEDY)[0]
    assert "Berlin" in made.text
    again = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, pad_token_id=0)
    assert made.ids == again[0, ids.shape[1] :].tolist()
    record("llama", "real weights", (ours - wanted).abs().max())
