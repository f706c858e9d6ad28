"""Every family that GGUF has a place for comes back from our file with transformers' logits, and llama.cpp, given the same
file, continues a prompt as we do."""

import gguf_case
import pytest
import torch
from table import record

from llmwright.checkpoint import gguf, gguf_write

IDS = torch.randint(0, 400, (2, 60), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", gguf_case.CASES)
@torch.no_grad()
def test_a_file_has_the_logits_of_transformers(case, tmp_path):
    model = gguf_case.ours(case, tmp_path / "m")
    gguf_write.save(model, tmp_path / "x.gguf", tokenizer=gguf_case.tokenizer(), kind="f32")
    again, _ = gguf.load(tmp_path / "x.gguf")
    made, wanted = again(IDS), gguf_case.theirs(case)(IDS).logits
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-4)
    record(model.config.family, "GGUF", (made - wanted).abs().max())


def test_llama_cpp_continues_every_architecture_as_we_do(tmp_path):
    jobs, wanted, families = [], {}, {}
    for case in gguf_case.CASES:
        model, file = gguf_case.ours(case, tmp_path / case), str(tmp_path / f"{case}.gguf")
        gguf_write.save(model, file, tokenizer=gguf_case.tokenizer(), kind="f32")
        wanted[case], families[case] = gguf_case.greedy(model, gguf_case.tokenizer(), 16), model.config.family
        jobs.append((file, gguf_case.PROMPT, 16))
    found = dict(zip(wanted, gguf_case.llama_cpp(gguf_case.CONTINUE, jobs)))
    assert found == wanted
    assert sum(len(set(ids)) > 8 for ids in wanted.values()) > 8  # they say something
    for family in families.values():
        record(family, "llama.cpp")
