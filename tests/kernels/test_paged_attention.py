"""Attention to keys and values in blocks: what the definition says, and to the bit the same in any company."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright import kernels
from llmwright.kernels import native, paged, reference

needs_native = pytest.mark.skipif(native.library() is None, reason=f"no native kernels here: {native.problem()}")
DTYPES = [torch.float32, torch.bfloat16]


class Texts:
    """Texts of some lengths with keys and values in blocks here and there, and a query at each position."""

    def __init__(self, lengths, H, K, C, size, dtype=torch.float32, seed=0):
        generator = torch.Generator().manual_seed(seed)
        draw = random.Random(seed)
        self.lengths, self.size = lengths, size
        wanted = [-(-length // size) for length in lengths]
        n_blocks = sum(wanted) + 3
        self.keys, self.values = (torch.randn(n_blocks, size, K, C, generator=generator).to(dtype) for _ in range(2))
        self.queries = [torch.randn(length, H, C, generator=generator).to(dtype) for length in lengths]
        numbers = draw.sample(range(n_blocks), n_blocks)
        self.tables = [[numbers.pop() for _ in range(n)] for n in wanted]
        self.idle = numbers

    def call(self, run, asked, **how):
        """`asked`: (text, from, to). The results of each."""
        texts = list(dict.fromkeys(text for text, _, _ in asked))
        longest = max(len(self.tables[text]) for text in texts)
        tables = [self.tables[text] + [0] * (longest - len(self.tables[text])) for text in texts]
        tables = torch.tensor(tables, dtype=torch.int32)
        rows = torch.tensor([texts.index(t) for t, start, stop in asked for _ in range(start, stop)], dtype=torch.int32)
        positions = torch.tensor([p for _, start, stop in asked for p in range(start, stop)], dtype=torch.int32)
        q = torch.cat([self.queries[t][start:stop] for t, start, stop in asked])
        out = run(q, self.keys, self.values, tables, rows, positions, **how)
        return list(out.split([stop - start for _, start, stop in asked]))


def close(got, wanted, values, slack=1):
    """Measured by the largest value, as what is mixed may cancel. float32: sums in another order, another exp. bfloat16:
    weights and results are rounded to 8 bits; PyTorch's path rounds scores too, which are as large as 12 here and then
    go through exp."""
    tolerance = 1e-5 if values.dtype == torch.float32 else 2**-7
    for ours, theirs in zip(got, wanted, strict=True):
        assert (ours.float() - theirs.float()).abs().max() <= slack * tolerance * values.abs().max()


HOW = st.fixed_dictionaries({
    "window": st.sampled_from([None, 1, 3, 8, 17, 60]), "scale": st.sampled_from([None, 0.3]),
    "softcap": st.sampled_from([None, 2.0]), "biased": st.booleans(),
})


def options(how, H, longest):
    bias = torch.randn(H, longest, generator=torch.Generator().manual_seed(1)) if how["biased"] else None
    return {k: v for k, v in how.items() if k != "biased"} | {"key_bias": bias}


@pytest.mark.parametrize("kind", [pytest.param("native", marks=needs_native), "plain"])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4), size=st.sampled_from([1, 3, 4, 16]), how=HOW,
       heads=st.sampled_from([(1, 1), (3, 1), (4, 2), (9, 3), (5, 5)]), data=st.data(),
       C=st.sampled_from([1, 8, 16, 24, 48, 64, 80, 160]))
def test_it_is_what_the_definition_says(kind, dtype, lengths, size, how, heads, data, C):
    texts = Texts(lengths, *heads, C, size, dtype)
    asked = []
    for text, length in enumerate(lengths):
        start = data.draw(st.integers(0, length - 1))
        asked.append((text, start, data.draw(st.integers(start + 1, length))))
    how = options(how, heads[0], max(lengths))
    run = paged.attend if kind == "native" else lambda *a, **o: paged.plain(kernels.attention, *a, **o)
    exact = Texts(lengths, *heads, C, size, dtype)
    exact.keys, exact.values = exact.keys.float(), exact.values.float()
    exact.queries = [q.float() for q in exact.queries]
    wanted = exact.call(reference.paged_attention, asked, **how)
    close(texts.call(run, asked, **how), wanted, texts.values, slack=4 if kind == "plain" and dtype == torch.bfloat16 else 1)


@needs_native
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 150), min_size=1, max_size=5), C=st.sampled_from([8, 64, 80]),
       size=st.sampled_from([1, 4, 16]), how=HOW, seed=st.integers(0, 1000))
def test_no_bit_depends_on_the_company_the_order_the_blocks_or_the_pieces(threads, dtype, lengths, C, size, how, seed):
    torch.set_num_threads(threads)
    draw, how = random.Random(seed), options(how, 6, max(lengths))
    texts = Texts(lengths, 6, 2, C, size, dtype, seed)
    alone = {}
    for text, length in enumerate(lengths):  # each query in a call of its own
        for position in draw.sample(range(length), min(length, 12)):
            alone[text, position] = texts.call(paged.attend, [(text, position, position + 1)], **how)[0][0]
    # the same content in other blocks, whose rest and whose neighbours hold what poisons every sum that it gets into
    moved = Texts(lengths, 6, 2, C, size, dtype, seed)
    shape = (len(texts.keys) + 5, *texts.keys.shape[1:])
    moved.keys, moved.values = (torch.full(shape, torch.nan, dtype=dtype) for _ in "kv")
    numbers = draw.sample(range(len(moved.keys)), len(moved.keys))
    for text, length in enumerate(lengths):
        moved.tables[text] = [numbers.pop() for _ in texts.tables[text]]
        for place, (old, new) in enumerate(zip(texts.tables[text], moved.tables[text])):
            n = min(size, length - place * size)
            moved.keys[new, :n], moved.values[new, :n] = texts.keys[old, :n], texts.values[old, :n]
    for _ in range(4):
        asked = []
        for text in draw.sample(range(len(lengths)), draw.randint(1, len(lengths))):
            start = draw.randrange(lengths[text])
            stop = draw.choice([start + 1, draw.randint(start + 1, lengths[text]), lengths[text]])
            asked.append((text, start, stop))
        for (text, start, _), rows in zip(asked, moved.call(paged.attend, asked, **how)):
            for position, row in enumerate(rows, start):
                if (text, position) in alone:
                    assert torch.equal(row, alone[text, position]), (text, position, asked)


@needs_native
def test_slices_of_one_projection_are_taken_as_they_lie():
    texts = Texts([20], 4, 2, 16, 4)
    wide = torch.randn(20, 8, 16)
    texts.queries = [wide[:, 4:]]
    whole = texts.call(paged.attend, [(0, 0, 20)], scale=None, window=None, softcap=None, key_bias=None)[0]
    texts.queries = [wide[:, 4:].contiguous()]
    got = texts.call(paged.attend, [(0, 0, 20)], scale=None, window=None, softcap=None, key_bias=None)[0]
    assert torch.equal(whole, got)


@pytest.mark.parametrize("dtype", DTYPES)
def test_by_name_it_serves_every_kind_of_call(dtype):
    texts = Texts([40, 9], 4, 2, 16, 4, dtype)
    asked = [(0, 30, 40), (1, 8, 9)]
    wanted = texts.call(reference.paged_attention, asked)
    close(texts.call(kernels.paged_attention, asked), wanted, texts.values, slack=2)
    placed = (torch.zeros(shape, dtype=torch.int32) for shape in ((1, 1), 0, 0))
    assert kernels.paged_attention(torch.empty(0, 4, 16, dtype=dtype), texts.keys, texts.values, *placed).shape == (0, 4, 16)


def test_a_case_by_hand():
    """Two keys with scores 0 and ln 3: weights 1/4 and 3/4; the second block's number comes from the table."""
    keys, values = torch.zeros(2, 4, 1, 1, 2)
    keys[3, 0, 0, 0], values[1, 0, 0, 0], values[3, 0, 0, 1] = math.log(3), 4, 8
    got = kernels.paged_attention(
        torch.tensor([[[1.0, 5.0]]]), keys, values, torch.tensor([[1, 3, 2]], dtype=torch.int32),
        torch.tensor([0], dtype=torch.int32), torch.tensor([1], dtype=torch.int32), scale=1.0)
    torch.testing.assert_close(got, torch.tensor([[[1.0, 6.0]]]))
