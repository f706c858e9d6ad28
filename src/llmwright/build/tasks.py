"""What each objective asks of a build: batches to train on, what is measured on held-out text, and what is shown.

The loop sees none of this: it is given a loader, a loss and two functions.
"""

from dataclasses import dataclass
from functools import cached_property

from ..data.evaluation import evaluation_rows
from ..data.masking import Masking
from ..data.pairs import PairLoader, Pairs, evaluation_pairs
from ..data.rows import RowLoader
from ..data.shards import DataDir
from ..data.spans import SpanCorruption
from ..engine.fill_mask import fill_mask
from ..engine.generate import generate
from ..engine.prompt import start_ids
from ..engine.sampler import Sampling
from ..errors import RequestError
from ..evals.perplexity import evaluate_split
from ..evals.targets import evaluate_targets
from ..model.config import ModelConfig
from ..model.transformer import Transformer
from ..plan.flops import training_flops_per_token
from ..progress import Progress
from ..recipe import Recipe
from ..tokens.anatomy import USUAL_NAMES
from ..train.objectives import OBJECTIVES

SCORED = 8192  # tokens in a batch that is only measured
FEW = 3  # texts of the test split that are shown where a recipe names no prompts


def longest_context(recipe: Recipe, config: ModelConfig) -> int:
    """The longest rows of a training: what validation and test use. Raises RequestError beyond the model's context."""
    train = recipe.train
    wanted = [train.context or min(recipe.model.context, config.context), *(c for _, c, _ in train.growth)]
    if max(wanted) > config.context:
        raise RequestError(f"train: rows of {max(wanted)} tokens are beyond the model's context, {config.context}")
    return max(wanted)


def check_kind(recipe: Recipe, config: ModelConfig) -> None:
    """Raise RequestError when the objective is not for this kind of model."""
    objective = recipe.train.objective
    if OBJECTIVES[objective].kind == config.kind:
        return
    fits = [name for name, other in OBJECTIVES.items() if other.kind == config.kind]
    raise RequestError(
        f"train.objective: {objective} trains {_an(OBJECTIVES[objective].kind)}, and {config.family} is {_an(config.kind)}, "
        f"which learns by {' or '.join(fits)}"
    )


def _an(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def mixture(recipe: Recipe) -> dict[str, float]:
    """The shares of the sources: the training's, or the sources' weights."""
    return recipe.train.mixture or {name: s.weight for name, s in recipe.data.sources().items() if s.weight}


@dataclass
class Task:
    """What the objectives share. Each has `objective`, and `examples(name)`: what is shown where a recipe names no prompts,
    dicts with "prompt" and where there is one "reference"."""

    recipe: Recipe
    data: DataDir
    tokenizer: object
    model: Transformer

    objective = None
    collate = None  # how rows become batches; None: with the next tokens as targets

    @property
    def context(self) -> int:
        return self.recipe.train.context or min(self.recipe.model.context, self.model.config.context)

    @property
    def longest(self) -> int:
        return longest_context(self.recipe, self.model.config)

    def batches(self):
        """Endless training batches."""
        train = self.recipe.train
        loader = RowLoader(
            self.data.split("train"), self.context, train.batch, self.recipe.seed, rows=train.rows, stride=train.stride,
            mixture=mixture(self.recipe), curriculum=train.curriculum, collate=self.collate,
        )
        for _, later, rows in train.growth:  # what would fail later fails now
            loader.resize(later, rows)
        loader.resize(self.context, train.batch)
        return loader

    def held_out(self, name: str, max_tokens: int | None):
        """Batches of a split, the same each time."""
        return evaluation_rows(self.data.split(name), self.longest, max(1, SCORED // self.longest), self.collate, max_tokens)

    def check_prompts(self, prompts: list[str]) -> None:
        """Raise RequestError for a prompt that cannot be shown, before any training."""

    def notes(self) -> list[str]:
        """What a person should know of the training's batches."""
        return []

    def validate(self, model: Transformer) -> dict:
        result = evaluate_targets(model, self.objective, self.held_out("val", self.recipe.train.eval_tokens))
        return {"val_loss": result["loss"], "val_accuracy": result["accuracy"]}

    def test(self, model: Transformer, name: str, progress: Progress) -> dict:
        return evaluate_targets(model, self.objective, self.held_out(name, self.recipe.eval.tokens), progress)

    def show(self, model: Transformer, prompts: list[str], max_tokens: int, sampling: Sampling) -> list[tuple[str, str]]:
        """(prompt, text) of each prompt."""
        made = generate(model, self.tokenizer, prompts, max_tokens=max_tokens, sampling=sampling)
        return [(g.prompt, g.text) for g in made]

    def flops(self, context: int) -> float:
        """Of one token that the model reads, in training."""
        return training_flops_per_token(self.model.config, context)

    def openings(self, name: str) -> list[str]:
        """The first words of a few documents of a split."""
        split = self.data.split(name)
        source, texts = next(iter(split.sources)), []
        for i in range(min(FEW, split.sources[source].n_documents)):
            text = self.tokenizer.decode(split.document(source, i)[:40].tolist())
            texts.append(text[:60].rsplit(" ", 1)[0] or text or " ")
        return texts


class Causal(Task):
    """Text, and the next token of it."""

    objective = OBJECTIVES["causal"]

    def validate(self, model):
        result = self._score(model, "val", self.recipe.train.eval_tokens)
        return {"val_loss": result["loss"], "val_bpb": result["bits_per_byte"]}

    def test(self, model, name, progress):
        return self._score(model, name, self.recipe.eval.tokens, progress)

    def _score(self, model, name: str, max_tokens: int | None, progress: Progress = Progress()) -> dict:
        return evaluate_split(
            model, self.tokenizer, self.data.split(name), context=self.longest, max_tokens=max_tokens,
            batch=max(1, SCORED // self.longest), progress=progress,
        )

    def examples(self, name):
        return [{"prompt": opening} for opening in self.openings(name)]


class Masked(Task):
    """Text with masks, and what they hide."""

    objective = OBJECTIVES["masked"]

    @cached_property
    def collate(self) -> Masking:
        masking = self.recipe.train.masking
        return Masking(self.tokenizer, self.data.card["bos_id"], masking.share, masking.whole_words)

    def check_prompts(self, prompts):
        for prompt in prompts:
            if not any(mask in prompt for mask in (self.tokenizer.token(self.tokenizer.mask_id), *USUAL_NAMES["mask"])):
                raise RequestError(f"prompts: {prompt!r} has no mask to fill in: write [MASK] where it has a gap")

    def show(self, model, prompts, max_tokens, sampling):
        """The likeliest tokens of each mask."""
        shown = []
        for prompt in prompts:
            masks = fill_mask(model, self.tokenizer, prompt)
            shown.append((prompt, "; ".join(", ".join(f"{f.shown} {f.probability:.0%}" for f in mask) for mask in masks)))
        return shown

    def flops(self, context):
        return training_flops_per_token(self.model.config, context, head_share=self.recipe.train.masking.share)

    def examples(self, name):
        """The last word hidden."""
        words = [opening.split() for opening in self.openings(name)]
        return [{"prompt": " ".join([*most, "[MASK]"]), "reference": last} for *most, last in words if most]


class Span(Task):
    """Text without some of its spans, and these."""

    objective = OBJECTIVES["span"]

    @cached_property
    def collate(self) -> SpanCorruption:
        spans = self.recipe.train.spans
        return SpanCorruption(self.tokenizer, start_ids(self.model, self.tokenizer)[0], spans.share, spans.mean_length)

    def check_prompts(self, prompts):
        for prompt in prompts:
            if self.tokenizer.token(self.tokenizer.sentinel_ids[0]) not in prompt:
                raise RequestError(f"prompts: {prompt!r} has no span to write: put <extra_id_0> where it has a gap")

    def show(self, model, prompts, max_tokens, sampling):
        """Greedy: what the model takes to be the likeliest spans."""
        ids = [[*self.tokenizer.encode(prompt, specials=True), self.collate.eos_id] for prompt in prompts]
        made = generate(model, self.tokenizer, ids, max_tokens=max_tokens, sampling=Sampling(temperature=0))
        ends = {self.collate.eos_id, self.collate.pad_id}
        return [(prompt, self.tokenizer.decode([i for i in g.ids if i not in ends], skip_specials=False))
                for prompt, g in zip(prompts, made)]

    def flops(self, context):
        gone, spans = self.collate.sizes(self.collate.row_tokens(context))
        return training_flops_per_token(self.model.config, context, gone + spans + 1)

    def examples(self, name):
        """Two words taken out."""
        found, sentinel = [], self.tokenizer.token(self.tokenizer.sentinel_ids[0])
        for opening in self.openings(name):
            words = opening.split()
            middle = slice(len(words) // 2, len(words) // 2 + 2)
            reference, words[middle] = " ".join(words[middle]), [sentinel]
            found.append({"prompt": " ".join(words), "reference": f"{sentinel} {reference}"})
        return found


class Seq2Seq(Task):
    """Pairs: a source, and the target that belongs to it."""

    objective = OBJECTIVES["seq2seq"]

    def pairs(self, name: str) -> Pairs:
        if self.data.card.get("documents_are") != "pairs":
            raise RequestError(f"{self.data.path}: holds texts, and train.objective seq2seq learns from pairs (data.pairs)")
        eos = self.tokenizer.eos_id if self.tokenizer.eos_id is not None else self.data.card["bos_id"]
        start = start_ids(self.model, self.tokenizer)[0]
        pad = start if self.tokenizer.pad_id is None else self.tokenizer.pad_id
        return Pairs(self.data.split(name), self.context, start_id=start, eos_id=eos, pad_id=pad)

    @cached_property
    def training(self) -> Pairs:
        return self.pairs("train")

    def batches(self):
        train = self.recipe.train
        return PairLoader(self.training, train.batch_tokens or train.batch * self.context, self.recipe.seed)

    def notes(self):
        n = self.training.left_out
        return [f"{n:,} of {self.training.total:,} training pairs are beyond train.context {self.context}: left out"] if n else []

    def held_out(self, name, max_tokens):
        return evaluation_pairs(self.pairs(name), max(SCORED, self.context), max_tokens)

    def test(self, model, name, progress):
        return {**super().test(model, name, progress), "pairs_left_out": self.pairs(name).left_out}

    def show(self, model, prompts, max_tokens, sampling):
        """Greedy: the likeliest token each time."""
        made = generate(model, self.tokenizer, prompts, max_tokens=max_tokens, sampling=Sampling(temperature=0))
        return [(g.prompt, g.text) for g in made]

    def flops(self, context):
        source, target = self.training.length.mean(0)
        return training_flops_per_token(self.model.config, round(source), round(target))

    def examples(self, name):
        split = self.data.split(name)
        source = next(iter(split.sources))
        texts = [self.tokenizer.decode(split.document(source, i)) for i in range(min(2 * FEW, split.n_documents))]
        return [{"prompt": one, "reference": other} for one, other in zip(texts[0::2], texts[1::2])]


TASKS = {"causal": Causal, "masked": Masked, "span": Span, "seq2seq": Seq2Seq}
