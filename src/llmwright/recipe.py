"""Recipes: what to build, as typed data.

A recipe is YAML. Every key has a type, a default that works and a sentence here; `key.sub=value` on the command line
overrides one. All mistakes in a recipe are reported together, each with the key's path, the value, what is allowed,
and for an unknown key the nearest known one.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import RequestError

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are mistakes, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class Source(Section):
    """One named corpus.

    `path` is a file, a folder, `python:stdlib` (the standard library's own modules), `python:topics` (the pydoc
    topic pages) or `hub:owner/name` (a Hugging Face data set, where there is a network).
    """

    path: str
    text_key: str | None = None  # default: data.text_key
    weight: Annotated[float, Field(gt=0)] | None = None  # share of training rows; default: by its size


def _named(corpus):
    """A path, a list of paths, or names with paths or sections: as names with sections."""
    if corpus is None:  # there are pairs
        return {}
    if isinstance(corpus, str):
        corpus = [corpus]
    if isinstance(corpus, list):
        named: dict[str, Any] = {}
        for path in corpus:
            if not isinstance(path, str):
                raise ValueError(f"a list of corpora holds paths, not {path!r}; a corpus with settings needs a name before it")
            stem, name, n = _stem(path), _stem(path), 2
            while name in named:
                name, n = f"{stem}-{n}", n + 1
            named[name] = path
        corpus = named
    if not isinstance(corpus, dict):
        raise ValueError(f"a corpus is a path, a list of paths, or names with paths, not {corpus!r}")
    if not corpus:
        raise ValueError("there is no corpus: name a file, a folder or python:stdlib")
    return {str(name): {"path": source} if isinstance(source, str) else source for name, source in corpus.items()}


def _stem(path: str) -> str:
    """A source's name from its path: the last part, without endings."""
    if path.startswith(("python:", "hub:")):
        return path.split(":")[-1].split("/")[-1]
    return Path(path).expanduser().resolve().name.split(".")[0] or "text"


class Clean(Section):
    """Cleaning, and the thresholds of the quality filters (Gopher rules, Rae et al. 2021, table A1, loosened to
    let source code through). A document that fails one is dropped and counted under that filter's name."""

    unicode: bool = True  # repair mojibake (ftfy) and normalize to NFC
    control_characters: bool = True  # remove all but newline and tab
    min_chars: int = Field(32, ge=0)  # shorter documents are dropped
    max_chars: int = Field(0, ge=0)  # longer documents are cut into documents of at most this; 0: no limit
    max_line_chars: int = Field(100_000, ge=0)  # a document with a longer line is dropped (data blobs); 0: no limit
    min_letter_share: Fraction = 0.25  # letters among the non-space characters
    max_repeated_line_share: Fraction = 0.6  # repeated lines among all non-blank lines
    quality: bool = True  # False: none of the four filters above but min_chars and max_chars


class PairFiles(Section):
    """Where pairs are: `source` and `target`, two text files of which line N of one belongs to line N of the other; or
    `path`, a table (jsonl, json, csv, tsv, parquet) with a key or column for each side. All may be .gz or .zst."""

    source: str | None = None
    target: str | None = None
    path: str | None = None
    source_key: str = "source"  # of a table; in one without a header the column's number from 0
    target_key: str = "target"

    @model_validator(mode="after")
    def _one_way(self):
        if bool(self.source) != bool(self.target) or bool(self.source) == bool(self.path):
            raise ValueError("pairs are in two files, source and target, or in one table, path: give one or the other")
        return self


def _as_training(source):
    """Files alone are training pairs."""
    return source if isinstance(source, dict) and "train" in source else {"train": source}


class PairSource(Section):
    """One named set of pairs. What has no files of its own is taken from `train`, by data.fractions."""

    train: PairFiles
    val: PairFiles | None = None
    test: PairFiles | None = None


class PairLimits(Section):
    """Which pairs are kept: what is dropped is counted under the limit's name. Lengths are in characters."""

    min_chars: int = Field(1, ge=1)  # of either side
    max_chars: int = Field(2000, ge=0)  # 0: no limit
    max_ratio: float = Field(9.0, ge=0)  # of the longer side to the shorter (Moses' clean-corpus-n has 9); 0: no limit


class Data(Section):
    """The corpus and how it becomes training, validation and test text; or pairs of texts."""

    corpus: Annotated[dict[str, Source], BeforeValidator(_named)] = "python:stdlib"  # a path, a list, or name: path
    pairs: dict[str, Annotated[PairSource, BeforeValidator(_as_training)]] = {}  # in place of a corpus, for seq2seq
    pair_limits: PairLimits = PairLimits()
    text_key: str = "text"  # the field that holds the text in jsonl, json, csv, tsv and parquet
    clean: Clean = Clean()
    exact_duplicates: bool = True  # drop documents whose text was seen before
    near_duplicates: Annotated[float, Field(gt=0, le=1)] | None = 0.8  # Jaccard threshold; null: keep them
    split: Literal["hash", "tail"] = "hash"  # hash: whole documents, by a stable hash; tail: the last part of each
    fractions: tuple[Fraction, Fraction, Fraction] = (0.8, 0.1, 0.1)  # train, validation, test
    overlap_tokens: int = Field(13, ge=0)  # drop training documents that share so many words in a row with the
    # validation or test text (Brown et al. 2020, appendix C, whose tokens are words); 0: keep them
    workers: int = Field(0, ge=0)  # processes; 0: one a core
    shard_tokens: int = Field(100_000_000, ge=1000)

    @model_validator(mode="before")
    @classmethod
    def _pairs_in_place_of_a_corpus(cls, values):
        if isinstance(values, dict) and values.get("pairs") and not values.get("corpus"):
            return {**values, "corpus": None}
        return values

    @model_validator(mode="after")
    def _corpus_or_pairs(self):
        if self.corpus and self.pairs:
            raise ValueError("a corpus and pairs are two kinds of data: give one of them")
        if not self.corpus and not self.pairs:
            raise ValueError("there is no corpus: name a file, a folder or python:stdlib")
        if self.pairs and self.split == "tail":
            raise ValueError("split: tail cuts a text in three, and pairs are not cut: leave split at hash")
        return self

    @model_validator(mode="after")
    def _fractions_sum(self):
        if abs(sum(self.fractions) - 1) > 1e-6 or self.fractions[0] == 0:
            raise ValueError(f"fractions must add to 1 with a training part, not {list(self.fractions)}")
        if self.split == "tail" and self.overlap_tokens:
            object.__setattr__(self, "overlap_tokens", 0)  # the parts of one document may repeat its phrases
        return self

    def sources(self) -> dict[str, Source]:
        """The corpus as named sources, in order, each with its `text_key`."""
        return {
            name: source if source.text_key else source.model_copy(update={"text_key": self.text_key})
            for name, source in self.corpus.items()
        }


class Tokenizer(Section):
    """Trained on the training text, or loaded from `path`."""

    kind: Literal["bpe", "unigram", "wordpiece", "chars", "bytes"] = "bpe"
    vocab_size: int = Field(4096, ge=256, le=262_144)  # not for chars and bytes, which take what the text has
    path: str | None = None  # a tokenizer.json, a model directory, vocab.bpe, vocab.txt or a SentencePiece .model
    pattern: Literal["llmwright", "gpt-2", "llama-bpe"] = "llmwright"  # how bpe cuts text first; llama.cpp knows the others
    sample_bytes: int = Field(64_000_000, ge=1)  # of training text to train on
    mask: bool = False  # whether there must be a mask token; the masked objective sets it
    sentinels: int = Field(0, ge=0, le=1000)  # how many <extra_id_0>, … there must be; the span objective sets 100


FAMILIES = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gpt2", "bloom", "falcon", "palm",
            "bert", "roberta", "t5", "marian")
ROTARY = "llama mistral mixtral qwen2 qwen3 gemma gemma2 gemma3 falcon palm"
# settings that not all families have: who has them, and what the others have instead
OWN = {
    "n_kv_heads": (ROTARY, "each head has its own keys and values"),
    "head_dim": (ROTARY.replace("falcon ", "") + " t5", "a head is d_model / n_heads wide"),
    "rope_theta": (ROTARY, "its positions are not rotary"),
    "window": ("mistral mixtral gemma2 gemma3", "every layer sees the whole text"),
    **dict.fromkeys(("n_experts", "active_experts", "balance_loss", "z_loss"), ("mixtral", "a layer has one feed-forward")),
    "n_encoder_layers": ("t5 marian", "it is one stack of layers, n_layers of them"),
    "d_ff": (" ".join(f for f in FAMILIES if f != "bloom"), "its feed-forward is 4 · d_model wide"),
}


class Model(Section):
    """The shape. Published families only, so that what is trained loads everywhere. `OWN` says which settings only some
    of them have."""

    family: Literal[FAMILIES] = "qwen3"
    start_from: str | None = None  # a model directory: its weights and shape, and this recipe's training
    d_model: Positive = 256
    n_layers: Positive = 4
    n_encoder_layers: Positive | None = None  # default: n_layers, which is then the decoder's number
    n_heads: Positive = 4
    n_kv_heads: Positive | None = None  # default: n_heads; falcon and palm: 1
    head_dim: Positive | None = None  # default: d_model / n_heads
    d_ff: Positive | None = None  # default: 4 times the width; gated 8/3, rounded up to 64, but palm 4
    n_experts: Positive | None = None  # default: 8
    active_experts: Positive | None = None  # a token; default: 2
    balance_loss: Annotated[float, Field(ge=0)] | None = None  # weight of the routers' loss; default: 0.02
    z_loss: Annotated[float, Field(ge=0)] | None = None  # weight of the routers' other loss; default: 0.001
    context: Positive = 512
    window: Positive | None = None  # tokens a windowed layer sees; default: half the context, at most the family's own
    # (mistral, gemma2: 4096, gemma3: 1024); mixtral: none
    tie_embeddings: bool = True  # t5: version 1.0 when true, 1.1 (FLAN's shape) when false
    rope_theta: Annotated[float, Field(gt=0)] | None = None  # default: 10,000; gemma3: 1,000,000, 10,000 where windowed
    dropout: float = Field(0.0, ge=0, lt=1)  # where the family has it
    init_std: Annotated[float, Field(gt=0)] | None = None  # of new weights; default: the family's
    init_residual_scale: Annotated[float, Field(ge=0)] | None = None  # of the two matrices of a block that write to
    # the residual stream, times init_std; default: the family's; 0 makes each block start as nothing

    @model_validator(mode="after")
    def _settings_of_the_family(self):
        for name, (families, instead) in OWN.items():
            value = getattr(self, name)
            if value is not None and self.family not in families.split() and not self.start_from:
                usual = {"n_kv_heads": self.n_heads, "head_dim": self.d_model / self.n_heads, "d_ff": 4 * self.d_model}
                if value != usual.get(name):
                    raise ValueError(f"{name} {value:g} does not go with family {self.family}: {instead}; families that "
                                     f"have it: {', '.join(families.split())}")
        if not self.tie_embeddings and self.family in ("palm", "marian"):
            raise ValueError(f"tie_embeddings false does not go with family {self.family}: one table is for input and "
                             "output")
        active, n_experts = self.active_experts or 2, self.n_experts or 8
        if self.family == "mixtral" and active > n_experts:
            raise ValueError(f"active_experts {active} is more than the {n_experts} experts there are")
        return self

    @model_validator(mode="after")
    def _heads_share_the_width(self):
        if self.start_from:
            return self
        if self.head_dim is None and self.d_model % self.n_heads:
            raise ValueError(f"n_heads {self.n_heads} does not divide d_model {self.d_model}: every head takes an equal share")
        if self.n_heads % (self.n_kv_heads or self.n_heads):
            raise ValueError(
                f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}: every key-value head serves "
                "an equal group of query heads"
            )
        head_dim = self.head_dim or self.d_model // self.n_heads
        if self.family in ROTARY.split() and head_dim % 2:
            raise ValueError(f"the head width {head_dim} is odd; rotary positions turn pairs of channels: make it even")
        return self


class Stage(Section):
    """From this fraction of the training on, these shares of the tokens."""

    start: Fraction
    mixture: dict[str, Annotated[float, Field(ge=0)]]


class Optimizer(Section):
    """AdamW (Loshchilov & Hutter 2019) on everything, or Muon (Jordan et al. 2024) on the blocks' matrices with AdamW
    on the rest."""

    name: Literal["adamw", "muon"] = "muon"
    lr: float = Field(3e-3, gt=0)  # AdamW's
    muon_lr: float = Field(0.02, gt=0)
    betas: tuple[Share, Share] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    momentum: Share = 0.95  # Muon's
    weight_decay: float = Field(0.1, ge=0)  # decoupled, on matrices only
    clip: float = Field(1.0, ge=0)  # of the gradient's norm; 0: none


class Schedule(Section):
    """The learning rate over the training. `wsd`: warm-up, stable, decay (Hu et al. 2024); `cosine`: Loshchilov &
    Hutter 2017, after the warm-up."""

    name: Literal["wsd", "cosine", "constant"] = "wsd"
    warmup: Fraction = 0.02  # of the training
    decay: Fraction = 0.65  # of the training, wsd only
    final: Fraction = 0.0  # learning rate at the end, as a share of the peak


class Masking(Section):
    """Which tokens are hidden (Devlin et al. 2019, section 3.1). Of those, 80 % become the mask token, 10 % any other,
    and 10 % stay."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.15  # of the tokens
    whole_words: bool = False  # hide whole words (Devlin's later models; Cui et al. 2019)


class Spans(Section):
    """Which spans are taken out (Raffel et al. 2020, section 3.1.4)."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.15  # of the tokens
    mean_length: float = Field(3.0, ge=1)


class Train(Section):
    """The one loop."""

    objective: Literal["causal", "masked", "span", "seq2seq"] = "causal"
    masking: Masking = Masking()
    spans: Spans = Spans()
    label_smoothing: Share = 0.0  # this share of each target is spread over the vocabulary (Szegedy et al. 2016)
    steps: Positive | None = None
    max_minutes: Annotated[float, Field(gt=0)] | None = None  # wall clock; the schedule follows it
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch: Positive = 16  # rows a micro-batch
    accumulate: Positive = 1  # micro-batches a step
    context: Positive | None = None  # tokens a row; default: the model's
    batch_tokens: Positive | None = None  # seq2seq: tokens a side in a batch, padding counted; default: batch · context
    growth: list[tuple[Fraction, Positive, Positive]] = []  # [from this fraction on, context, batch], ascending
    rows: Literal["packed", "window"] = "packed"
    stride: Positive | None = None  # window only; default: the context
    mixture: dict[str, Annotated[float, Field(ge=0)]] = {}  # shares of the tokens by source; default: by size
    curriculum: list[Stage] = []
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: measured, the faster one
    activation_checkpointing: bool = False
    compile: bool = False
    eval_every: int = Field(100, ge=0)  # steps; 0: only at the end
    eval_tokens: Positive = 100_000  # of the validation text, the same each time
    sample_every: int = Field(0, ge=0)  # steps; 0: never
    prompts: list[str] = []
    sample_tokens: Positive = 64
    save_every: int = Field(0, ge=0)  # steps; 0: every save_minutes
    save_minutes: float = Field(5.0, gt=0)
    keep_last: Positive = 2  # checkpoints; the best one is always kept as well
    patience: int = Field(0, ge=0)  # evaluations without improvement before stopping; 0: never
    max_bad_steps: Positive = 5  # non-finite steps in a row before stopping
    tensorboard: bool = True
    device: str = "auto"

    @model_validator(mode="after")
    def _some_end(self):
        if not (self.steps or self.max_minutes or self.epochs):
            raise ValueError("give at least one of steps, max_minutes and epochs: it says when the training ends")
        if self.stride and self.rows == "packed":
            raise ValueError("stride is for rows: window; packed rows have none")
        fits = [("masking", "masked"), ("spans", "span"), ("batch_tokens", "seq2seq")]
        for name, objective in fits:
            default = type(self).model_fields[name].default
            if self.objective != objective and getattr(self, name) != default:
                raise ValueError(f"{name} is for objective: {objective}, not {self.objective}")
        if self.objective == "seq2seq":
            for name in ("growth", "rows", "stride", "mixture", "curriculum"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is for rows of text; seq2seq has pairs, batched by their length (batch_tokens)")
        if self.patience and not self.eval_every:
            raise ValueError(f"patience {self.patience} counts evaluations: give eval_every")
        starts = [g[0] for g in self.growth]
        if starts != sorted(starts):
            raise ValueError(f"growth must be in ascending order of its first numbers, not {starts}")
        return self


class Eval(Section):
    """What is measured on the test text when the training is done."""

    tokens: Positive | None = None  # of the test text; default: all
    prompts: list[str] = []  # completions to show
    completions: int = Field(0, ge=0)  # sampled completions to check with `check`
    check: Literal["python"] | None = None  # python: the share of completions that parse
    max_tokens: Positive = 96
    temperature: float = Field(0.8, ge=0)
    top_p: Fraction = 0.95


    @model_validator(mode="after")
    def _check_and_completions(self):
        if bool(self.check) != bool(self.completions):
            raise ValueError("check and completions go together: which check, and on how many completions")
        return self


class Recipe(Section):
    """A whole build, from text to a measured model."""

    name: str = Field("model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    out: str | None = None  # default: runs/NAME
    seed: int = Field(1337, ge=0, lt=2**31)
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    model: Model = Model()
    train: Train
    eval: Eval = Eval()

    @model_validator(mode="after")
    def _agree(self):
        objective, pairs = self.train.objective, bool(self.data.pairs)
        if pairs != (objective == "seq2seq"):
            raise ValueError(
                f"data.pairs is for train.objective: seq2seq, not {objective}" if pairs else
                "train.objective: seq2seq learns from pairs: name them under data.pairs"
            )
        if self.eval.check and objective != "causal":
            raise ValueError(f"eval.check is for texts that a causal model writes, not for train.objective {objective}")
        needs = {"masked": {"mask": True}, "span": {"sentinels": self.tokenizer.sentinels or 100}}.get(objective, {})
        if needs:
            object.__setattr__(self, "tokenizer", self.tokenizer.model_copy(update=needs))
        known = self.data.sources()
        mixtures = [("train.mixture", self.train.mixture)]
        mixtures += [(f"train.curriculum.{i}.mixture", s.mixture) for i, s in enumerate(self.train.curriculum)]
        for where, mixture in mixtures:
            for name in mixture:
                if name not in known:
                    raise ValueError(f"{where}.{name}: there is no such source in data.corpus: {', '.join(known)}")
        for _, context, _ in self.train.growth:
            if context > self.model.context:
                raise ValueError(f"train.growth: context {context} is beyond model.context {self.model.context}")
        if self.train.context and self.train.context > self.model.context:
            raise ValueError(f"train.context {self.train.context} is beyond model.context {self.model.context}")
        return self

    @property
    def directory(self) -> Path:
        return Path(self.out).expanduser() if self.out else Path("runs") / self.name

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where YAML itself would drop the first."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: str | Path, overrides: list[str] = (), *, needs_train: bool = True) -> Recipe:
    """Read the recipe at `path` and apply `key.sub=value` overrides (values are YAML).

    Raises RequestError that lists every mistake, one line each.
    """
    path = Path(path).expanduser()
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise RequestError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read as text: {error}") from None
    except RecursionError:
        raise RequestError(f"{path}: not a recipe: it is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RequestError(f"{path}: not valid YAML{where}: {getattr(error, 'problem', None) or error}") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise RequestError(f"{path}: a recipe is a mapping of keys to values, not {type(tree).__name__}")
    return parse(tree, overrides, where=str(path))


def parse(tree: dict, overrides: list[str] = (), *, where: str = "recipe") -> Recipe:
    """The recipe in `tree` with the overrides applied."""
    tree = {**tree, **({} if "train" in tree else {"train": {}})}
    problems = []
    for override in overrides:
        problem = _apply(tree, override)
        if problem:
            problems.append(problem)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        problems += [_explain(e) for e in error.errors()]
    if problems:
        problems = list(dict.fromkeys(problems))
        head = f"{where}: {len(problems)} mistake{'s' if len(problems) > 1 else ''}"
        raise RequestError("\n  ".join([head, *problems]))
    return recipe


def _apply(tree: dict, override: str) -> str | None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        return f"{override}: an override is key.sub=value"
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            return f"{key}: {parent} is a value, not a section"
        node = child
    node[last] = value
    return None


def _section_keys(location: tuple) -> list[str]:
    """The keys that may stand at the parent of `location`."""
    kind: Any = Recipe
    for part in location[:-1]:
        if part in getattr(kind, "model_fields", {}):
            kind = _section(kind.model_fields[part].annotation)
    return list(getattr(kind, "model_fields", {}))


def _section(annotation) -> Any:
    """The section class within a field's type: list[Stage] → Stage."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section(inner))), None)


def _explain(error: dict) -> str:
    """One pydantic error as one line: path, value, what is allowed."""
    path = [str(part) for part in error["loc"]]
    where = ".".join(path) or "recipe"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = _section_keys(error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys here: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    if error["type"] == "value_error":
        return message if where == "recipe" else f"{where}: {message}"
    value = repr(error.get("input"))
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"{where}: {value} is not allowed: {message[0].lower()}{message[1:]}"
