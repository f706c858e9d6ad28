"""The last measurement of a build: the trained model on the test text, which nothing before has touched."""

from pathlib import Path

from ..checkpoint.directory import load
from ..data.shards import DataDir
from ..engine.generate import generate
from ..engine.sampler import Sampling
from ..errors import RequestError
from ..evals.perplexity import evaluate_split
from ..progress import Progress
from ..recipe import Recipe
from ..tokens.load import load as load_tokenizer
from ..train.run import Run
from .pretrain import longest_context


def measure(recipe: Recipe, run: Run, progress: Progress = Progress()) -> dict:
    """Loss, perplexity and bits per byte on the test text; completions of the recipe's prompts; and with `eval.check`
    the share of sampled completions that pass it."""
    settings = recipe.eval
    data = DataDir.open(run.path / "data")
    model, tokenizer = load(Path(run.path / "model")), load_tokenizer(data.tokenizer_path)
    name = "test" if data.card["splits"].get("test", {}).get("shards") else "val"
    data.verify((name,), progress)
    split = data.split(name)
    context = longest_context(recipe, model.config)
    rows = max(1, 8192 // context)
    result = evaluate_split(
        model, tokenizer, split, context=context, max_tokens=settings.tokens, batch=rows, progress=progress
    )
    result["split"] = name
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, seed=recipe.seed)
    result["completions"] = []
    prompts = settings.prompts or [_opening(tokenizer, split, i) for i in range(min(3, split.n_documents))]
    if prompts:
        made = generate(model, tokenizer, prompts, max_tokens=settings.max_tokens, sampling=sampling)
        result["completions"] = [{"prompt": g.prompt, "text": g.text} for g in made]
    if settings.check == "python" and settings.completions:
        from ..evals.completions import python_share

        try:
            result |= python_share(
                model, tokenizer, split, n=settings.completions, max_tokens=settings.max_tokens, sampling=sampling,
                progress=progress,
            )
        except RequestError as error:  # the recipe's check does not fit this text: the rest of the test stands
            progress.say(f"not checked as Python: {error}")
    return result


def _opening(tokenizer, split, i: int) -> str:
    """The first words of a test document: a prompt for a recipe that names none."""
    source = next(iter(split.sources))
    i %= split.sources[source].n_documents
    text = tokenizer.decode(split.document(source, i)[:40].tolist())
    return text[:60].rsplit(" ", 1)[0] or text or " "
