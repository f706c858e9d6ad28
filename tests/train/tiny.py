"""A training small enough to repeat: 200 short documents of made-up words, a two-layer model."""

import json
from pathlib import Path

import numpy as np
import torch

from llmwright import recipe as recipes
from llmwright.data.rows import RowLoader, evaluation_batches
from llmwright.data.shards import DataDir, ShardWriter
from llmwright.families.shapes import shape
from llmwright.model.build import new
from llmwright.train.job import Job
from llmwright.train.objectives import causal
from llmwright.train.run import Run

VOCABULARY = 40


def make_data(path: Path) -> Path:
    """Documents whose next token is mostly the last one plus 3: something to learn."""
    random = np.random.default_rng(0)
    splits = {}
    for name, n in (("train", 200), ("val", 20)):
        (path / name).mkdir(parents=True)
        writer = ShardWriter(path / name, "words", VOCABULARY, 10**6)
        for _ in range(n):
            length = int(random.integers(5, 60))
            tokens = (random.integers(1, VOCABULARY) + 3 * np.arange(length)) % (VOCABULARY - 1) + 1
            writer.add(np.concatenate([[0], tokens]).astype(np.uint16), length)
        splits[name] = {"shards": writer.close()}
    (path / "data.json").write_text(json.dumps({"vocab_size": VOCABULARY, "bos_id": 0, "splits": splits}))
    return path


def make_recipe(**train):
    settings = {"steps": 12, "batch": 4, "context": 32, "precision": "float32", "eval_every": 4, "tensorboard": False,
                "save_minutes": 60, "optimizer": {"lr": 3e-3}, **train}
    model = {"d_model": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "context": 64}
    return recipes.parse({"model": model, "train": settings})


def make_job(data: Path, run: Run, recipe, dropout: float = 0.0) -> Job:
    torch.manual_seed(recipe.seed)
    data = DataDir.open(data)
    spec = recipe.model.model_copy(update={"dropout": dropout})
    model = new(shape(spec, VOCABULARY, {"bos": 0, "eos": 0}), recipe.seed)
    settings = recipe.train
    loader = RowLoader(data.split("train"), settings.context, settings.batch, recipe.seed)
    validation = data.split("val")

    def evaluate(model):
        total = n = 0
        for batch in evaluation_batches(validation, 32, 8):
            loss, k, _ = causal(model, batch)
            total, n = total + loss.item(), n + k
        return {"val_loss": total / n}

    return Job(run, model, loader, causal, settings, settings.context, evaluate, fingerprint={"data": data.fingerprint})
