"""The embedding table in two dimensions, before and after training.

Principal components (Pearson 1901) show the table's largest directions, all tokens alike. t-SNE (van der Maaten &
Hinton 2008) shows who is whose neighbour, for the most frequent tokens only: it is quadratic, and a token that was
hardly ever trained has no neighbours worth showing.
"""

import keyword
import re
from pathlib import Path

import numpy as np

from .inputs import Missing

ENDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "shared.weight")  # of a table's name
COUNTED_TOKENS = 4_000_000  # enough to rank the most frequent few hundred


def read_table(path: Path) -> np.ndarray:
    """The input embedding (V, D) as float32 from a safetensors file or a model directory. Raises Missing."""
    import torch
    from safetensors import SafetensorError, safe_open

    files = [path] if path.suffix == ".safetensors" else sorted(path.glob("*.safetensors"))
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                names = list(tensors.keys())
                known = [name for ending in ENDINGS for name in names if name.endswith(ending)]
                only = names if len(names) == 1 else []  # the table saved at the start stands alone in its file
                for name in known or only:
                    return tensors.get_tensor(name).to(torch.float32).numpy()
        except (OSError, SafetensorError) as error:
            raise Missing(f"{file.name} cannot be read: {error}.") from None
    raise Missing(f"This run has no embedding table in {path.name}.")


def principal_components(table: np.ndarray, k: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The rows of `table` (N, D) on the k directions of largest variance (N, k), and each one's share of the variance.

    The sign of a direction is free; here the entry of largest size is positive, so the picture does not flip.
    """
    centred = table - table.mean(axis=0)
    covariance = centred.T.astype(np.float64) @ centred  # D x D: cheap however many tokens there are
    variance, directions = np.linalg.eigh(covariance)
    variance, directions = variance[::-1].clip(min=0), directions[:, ::-1][:, :k]
    sign = np.sign(directions[np.abs(directions).argmax(axis=0), range(directions.shape[1])])
    shares = variance[:k] / max(variance.sum(), np.finfo(float).tiny)
    return centred @ (directions * sign), shares


def neighbours(table: np.ndarray) -> np.ndarray:
    """t-SNE of the rows of `table` (N, D) as (N, 2). By direction, not length: frequent tokens have longer rows."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(table) < 5:
        raise Missing("There are too few tokens for t-SNE.")
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    perplexity = min(30.0, (len(table) - 1) / 3)
    tsne = TSNE(2, init="pca", perplexity=perplexity, random_state=0)
    with threadpool_limits(1):  # so few points: measured 1.8 s on one thread, 6.4 s on two that wait for each other
        return tsne.fit_transform(unit.astype(np.float32))


def frequencies(data: Path, vocab_size: int) -> np.ndarray:
    """How often each token occurs at the start of each training shard: (V,) counts, all zero without shards."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    shards = sorted((data / "train").glob("*.tokens"))
    dtype = np.dtype("<u2" if vocab_size <= 65536 else "<u4")
    for shard in shards:
        tokens = np.fromfile(shard, dtype, count=max(1, COUNTED_TOKENS // len(shards)))
        found = np.bincount(tokens[tokens < vocab_size], minlength=vocab_size)
        counts += found
    return counts


def visible(token: bytes) -> str:
    """A token as a person can see it: spaces, line ends and tabs drawn, bytes that are no text in hexadecimal.

    A run of four or more of one kind is drawn once with its count: ␣×8.
    """
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return " ".join(f"{byte:02X}" for byte in token)
    text = re.sub(r"( {4,}|\n{4,}|\t{4,})", lambda run: f"{run[0][0]}×{len(run[0])}", text)
    text = text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    return "".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in text)


KINDS = ("keyword", "word", "word part", "number", "punctuation", "white space", "other")
KEYWORDS = frozenset(keyword.kwlist)


def kind(token: bytes, code: bool = True) -> str:
    """What a token is made of. A word begins with a space; a word part goes on inside one, or begins a line."""
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return "other"
    if not text or not all(c.isprintable() or c.isspace() for c in text):
        return "other"
    bare = text.strip()
    if not bare:
        return "white space"
    if code and bare in KEYWORDS:
        return "keyword"
    if re.fullmatch(r"[\d_.]*\d[\d_.]*", bare):
        return "number"
    if re.search(r"[^\W\d_]", bare):
        return "word" if text[0].isspace() else "word part"
    return "punctuation"
