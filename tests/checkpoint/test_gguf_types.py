"""Every GGUF number format decodes to what ggml's own Python package says, to the bit."""

import gguf
import numpy as np
import pytest
from hypothesis import given, strategies as st

from llmwright.checkpoint import gguf_types
from llmwright.checkpoint.gguf_types import TYPES, decode

QUANTIZED = [number for number, kind in TYPES.items() if kind.weights > 1]


def theirs(data: np.ndarray, number: int) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data, gguf.GGMLQuantizationType(number)).reshape(-1)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the bit, but for the kind of NaN."""
    return a.dtype == b.dtype == np.float32 and bool(
        ((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all())


@pytest.mark.parametrize("number", TYPES, ids=lambda n: TYPES[n].name)
def test_random_blocks_decode_as_in_ggml_to_the_bit(number):
    kind = TYPES[number]
    size = kind.layout.itemsize * (3 * gguf_types.PIECE // kind.weights + 7)  # several pieces and a part
    data = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
    assert same_bits(decode(data, kind), theirs(data, number))


@given(number=st.sampled_from(QUANTIZED), seed=st.integers(0, 2**32 - 1), blocks=st.integers(1, 9),
       fill=st.sampled_from([None, 0, 255, 0x80]))
def test_any_blocks_decode_as_in_ggml(number, seed, blocks, fill):
    kind = TYPES[number]
    data = np.random.default_rng(seed).integers(0, 256, kind.layout.itemsize * blocks, dtype=np.uint8)
    if fill is not None:
        data[:] = fill
    assert same_bits(decode(data, kind), theirs(data, number))


def test_names_and_sizes_are_those_of_ggml():
    for number, kind in TYPES.items():
        name = gguf.GGMLQuantizationType(number)
        assert name.name == kind.name
        assert gguf.GGML_QUANT_SIZES[name] == (kind.weights, kind.layout.itemsize)


def test_a_block_of_q4_0_worked_by_hand():
    """d = 0.5; the first byte 0xF0 holds 0 (weight 0) and 15 (weight 16)."""
    data = np.frombuffer(np.float16(0.5).tobytes() + bytes([0xF0] + [0x88] * 15), np.uint8)
    weights = decode(data, TYPES[2])
    assert weights[0] == -4.0 and weights[16] == 3.5 and not weights[1:16].any() and not weights[17:].any()


def test_weights_are_written_where_asked_without_another_copy():
    data = np.random.default_rng(0).integers(0, 256, 34 * 1000, dtype=np.uint8)
    out = np.empty(32_000, np.float32)
    assert decode(data, TYPES[8], out) is out and same_bits(out, theirs(data, 8))
