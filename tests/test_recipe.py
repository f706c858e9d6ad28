"""A recipe's mistakes are all reported at once, each with path, value, what is allowed, and the nearest known key."""

from pathlib import Path

import pytest
import yaml

from llmwright import recipe as recipes
from llmwright.errors import RequestError

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def mistakes(tree: dict, *overrides: str) -> list[str]:
    with pytest.raises(RequestError) as caught:
        recipes.parse(tree, list(overrides))
    head, *lines = str(caught.value).splitlines()
    assert head.startswith(f"recipe: {len(lines)} mistake")
    return [line.strip() for line in lines]


def test_all_mistakes_at_once():
    found = mistakes(
        {
            "model": {"d_modl": 3, "n_heads": -1, "family": "gtp"},
            "train": {"steps": 5, "optimizer": {"nam": "adamw"}, "curriculum": [{"strt": 0.5, "mixture": {}}]},
            "data": {"corpus": {"a": {"pth": "x"}}},
            "trian": {},
        },
        "seed=-1", "nonsense",
    )
    assert set(found) == {
        "nonsense: an override is key.sub=value",
        "seed: -1 is not allowed: input should be greater than or equal to 0",
        "data.corpus.a.path: {'pth': 'x'} is not allowed: field required",
        "data.corpus.a.pth: unknown key; did you mean path?",
        "model.family: 'gtp' is not allowed: input should be 'llama', 'mistral', 'mixtral', 'qwen2', 'qwen3', 'gemma', "
        "'gemma2', 'gemma3', 'gpt2', 'bloom', 'falcon', 'palm', 'bert', 'roberta', 't5' or 'marian'",
        "model.n_heads: -1 is not allowed: input should be greater than or equal to 1",
        "model.d_modl: unknown key; did you mean d_model?",
        "train.optimizer.nam: unknown key; did you mean name?",
        "train.curriculum.0.start: {'strt': 0.5, 'mixture': {}} is not allowed: field required",
        "train.curriculum.0.strt: unknown key; did you mean start?",
        "trian: unknown key; did you mean train?",
    }


@pytest.mark.parametrize("tree, said", [
    ({}, "train: give at least one of steps, max_minutes and epochs"),
    ({"train": {"steps": "many"}}, "train.steps: 'many' is not allowed: input should be a valid integer"),
    ({"train": {"steps": 1}, "data": {"fractions": [0.5, 0.1, 0.1]}}, "data: fractions must add to 1"),
    ({"train": {"steps": 1, "context": 4096}}, "train.context 4096 is beyond model.context 512"),
    ({"train": {"steps": 1, "growth": [[0.5, 64, 8], [0.1, 32, 8]]}}, "ascending order"),
    ({"train": {"steps": 1, "mixture": {"code": 1}}}, "train.mixture.code: there is no such source in data.corpus: stdlib"),
    ({"train": {"steps": 1}, "tokenizer": {"vocab_size": 10}}, "tokenizer.vocab_size: 10 is not allowed"),
    ({"train": {"steps": 1}, "tokenizer": {"vocab_size": 10**6}}, "tokenizer.vocab_size: 1000000 is not allowed"),
    ({"train": {"steps": 1}, "data": {"corpus": 5}}, "data.corpus: a corpus is a path, a list of paths"),
    ({"train": {"steps": 1}, "data": {"corpus": []}}, "data.corpus: there is no corpus"),
    ({"train": {"steps": 1}, "data": {"corpus": None}}, "data: there is no corpus"),
    ({"train": {"steps": 1, "objective": "masks"}}, "train.objective: 'masks' is not allowed: input should be 'causal', 'masked'"),
    ({"train": {"steps": 1, "objective": "seq2seq"}}, "train.objective: seq2seq learns from pairs: name them under data.pairs"),
    ({"train": {"steps": 1}, "data": {"pairs": {"a": {"path": "a.tsv"}}}}, "data.pairs is for train.objective: seq2seq, not causal"),
    ({"train": {"steps": 1}, "data": {"corpus": "x", "pairs": {"a": {"path": "a.tsv"}}}}, "data: a corpus and pairs are two kinds"),
    ({"train": {"steps": 1}, "data": {"pairs": {"a": {"source": "a.de"}}}}, "data.pairs.a.train: pairs are in two files, source and"),
    ({"train": {"steps": 1}, "data": {"pairs": {"a": {"path": "a.tsv"}}, "split": "tail"}}, "data: split: tail cuts a text in three"),
    ({"train": {"steps": 1, "objective": "masked", "spans": {"share": 0.3}}}, "train: spans is for objective: span, not masked"),
    ({"train": {"steps": 1, "objective": "seq2seq", "stride": 3, "rows": "window"}}, "rows is for rows of text; seq2seq has pairs"),
    ({"train": {"steps": 1, "optimizer": {"lr": float("nan")}}}, "train.optimizer.lr: nan is not allowed"),
    ({"train": {"steps": 1}, "name": "../../etc"}, "name: '../../etc' is not allowed"),
])
def test_each_mistake_is_named(tree, said):
    assert any(said in line for line in mistakes(tree))


def test_overrides_reach_any_depth_and_are_yaml():
    recipe = recipes.parse({"train": {"steps": 1}}, [
        "train.optimizer.lr=1e-4", "data.corpus=[a.txt,b/a.md]", "train.growth=[[0,64,8]]", "data.near_duplicates=null",
    ])
    assert recipe.train.optimizer.lr == 1e-4 and recipe.train.growth == [(0, 64, 8)]
    assert recipe.data.near_duplicates is None
    assert {name: s.path for name, s in recipe.data.sources().items()} == {"a": "a.txt", "a-2": "b/a.md"}


def test_an_override_through_a_value_is_a_mistake():
    assert mistakes({"train": {"steps": 1}}, "train.steps.x=1") == ["train.steps.x: steps is a value, not a section"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_are_right_and_survive_being_written(path):
    recipe = recipes.load(path)
    assert recipes.parse(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize("content, said", [
    (b"a: [1, 2", "not valid YAML at line"), (b"- 1\n- 2\n", "a recipe is a mapping"), (b"\xff\xfe\x00", "cannot be read"),
])
def test_what_is_no_recipe_is_one_line(tmp_path, content, said):
    file = tmp_path / "r.yaml"
    file.write_bytes(content)
    with pytest.raises(RequestError, match=said) as caught:
        recipes.load(file)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(RequestError, match="nowhere.yaml: no such recipe"):
        recipes.load(tmp_path / "nowhere.yaml")


def test_pairs_are_read_in_short_and_at_length_and_written_back():
    files = {"source": "a.de.gz", "target": "a.en.gz"}
    short = recipes.parse({"train": {"steps": 1, "objective": "seq2seq"}, "data": {"pairs": {"a": files}}})
    long = recipes.parse({"train": {"steps": 1, "objective": "seq2seq"}, "data": {"pairs": {"a": {"train": files, "test": {"path": "t.csv"}}}}})
    assert short.data.pairs["a"].train.source == "a.de.gz" and short.data.pairs["a"].val is None
    assert long.data.pairs["a"].test.path == "t.csv" and not long.data.sources()
    for recipe in (short, long):
        assert recipes.parse(yaml.safe_load(recipe.to_yaml())) == recipe


def test_an_objective_brings_the_tokens_it_needs():
    masked = recipes.parse({"train": {"steps": 1, "objective": "masked"}})
    span = recipes.parse({"train": {"steps": 1, "objective": "span"}, "tokenizer": {"sentinels": 30}})
    assert masked.tokenizer.mask and span.tokenizer.sentinels == 30
    assert recipes.parse({"train": {"steps": 1, "objective": "span"}}).tokenizer.sentinels == 100
    assert recipes.parse(yaml.safe_load(masked.to_yaml())) == masked
