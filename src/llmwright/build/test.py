"""The last measurement of a build: the trained model on the test text, which nothing before has touched."""

from pathlib import Path

from ..checkpoint.directory import load
from ..data.shards import DataDir
from ..engine.sampler import Sampling
from ..errors import RequestError
from ..progress import Progress
from ..recipe import Recipe
from ..tokens.load import load as load_tokenizer
from ..train.run import Run
from .tasks import TASKS


def measure(recipe: Recipe, run: Run, progress: Progress = Progress()) -> dict:
    """What the objective's task measures on the test text (of next tokens loss, perplexity and bits per byte; of other
    targets loss and accuracy); what the model makes of the recipe's prompts; and with `eval.check` the share of sampled
    completions that pass it."""
    settings, objective = recipe.eval, recipe.train.objective
    data = DataDir.open(run.path / "data")
    model, tokenizer = load(Path(run.path / "model")), load_tokenizer(data.tokenizer_path)
    name = "test" if data.card["splits"].get("test", {}).get("shards") else "val"
    data.verify((name,), progress)
    task = TASKS[objective](recipe, data, tokenizer, model)
    result = {**task.test(model, name, progress), "split": name, "objective": objective}
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, seed=recipe.seed)
    result["completions"] = [{"prompt": prompt} for prompt in settings.prompts] or task.examples(name)
    prompts = [completion["prompt"] for completion in result["completions"]]
    if prompts:
        made = task.show(model, prompts, settings.max_tokens, sampling)
        for completion, (_, text) in zip(result["completions"], made):
            completion["text"] = text
    if settings.check == "python" and settings.completions:
        from ..evals.completions import python_share

        try:
            result |= python_share(
                model, tokenizer, data.split(name), n=settings.completions, max_tokens=settings.max_tokens,
                sampling=sampling, progress=progress,
            )
        except RequestError as error:  # the recipe's check does not fit this text: the rest of the test stands
            progress.say(f"not checked as Python: {error}")
    return result
