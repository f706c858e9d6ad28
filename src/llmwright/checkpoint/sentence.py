"""What a sentence encoder's directory says beside `config.json` (Reimers & Gurevych 2019; the layout of
sentence-transformers):

    modules.json                        what happens one after another: the transformer, pooling, normalization
    1_Pooling/config.json               how states become one vector
    sentence_bert_config.json           how much of a text is read
    config_sentence_transformers.json   texts that go before a text
"""

import json
from dataclasses import replace
from pathlib import Path

from ..errors import RequestError
from ..model.config import ModelConfig, Sentence

POOLING = {"cls": "first", "mean": "mean", "max": "max"}  # theirs: ours
_OLDER = {  # how files before sentence-transformers 6 say it
    "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_MODULES = "sentence_transformers.models."  # the names that every version of sentence-transformers reads


def read(path: Path, config: ModelConfig) -> ModelConfig:
    """`config` with its `sentence`, if the directory is an encoder's and says how its states become one vector."""
    if config.kind != "encoder" or not (path / "modules.json").is_file():
        return config
    modules = _json(path / "modules.json", list)
    if not all(isinstance(m, dict) and isinstance(m.get("type"), str) for m in modules):
        raise RequestError(f"{path / 'modules.json'}: not a list of modules, each with its type")
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise RequestError(
            f"{path / 'modules.json'}: {', '.join(kinds)} is not supported; supported: Transformer, Pooling and, after "
            "these, Normalize"
        )
    said = _json(next(iter(sorted(path.glob("sentence_*_config.json"))), None), dict)
    prompts = _json(path / "config_sentence_transformers.json", dict)
    texts = prompts.get("prompts") or {}
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise RequestError(f"{path / 'config_sentence_transformers.json'}: prompts must be a mapping of names to texts")
    name = prompts.get("default_prompt_name")
    if name is not None and name not in texts:
        raise RequestError(f"{path / 'config_sentence_transformers.json'}: there is no prompt {name!r}")
    # the directory that modules.json names, inside this one whatever it says
    pooling = _pooling(path / Path(str(modules[1].get("path", "1_Pooling"))).name / "config.json")
    return replace(config, sentence=Sentence(
        pooling, kinds[-1] == "Normalize", _max_tokens(path, said, config), said.get("do_lower_case") is True,
        tuple(texts.items()), name,
    ))


def _pooling(file: Path) -> str:
    said = _json(file, dict)
    modes = said.get("pooling_mode") or [mode for key, mode in _OLDER.items() if said.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) != 1 or modes[0] not in POOLING:
        raise RequestError(
            f"{file}: pooling by {' and '.join(map(str, modes))} is not supported; supported: {' or '.join(POOLING)}"
        )
    if said.get("include_prompt") is False:
        raise RequestError(f"{file}: include_prompt = false is not supported: prompts are part of the text")
    return POOLING[modes[0]]


def _max_tokens(path: Path, said: dict, config: ModelConfig) -> int | None:
    """As the sentence encoder's own file says, else as its tokenizer's does."""
    for found in (said.get("max_seq_length"), _json(path / "tokenizer_config.json", dict).get("model_max_length")):
        if type(found) is int and 3 <= found:
            return min(found, config.context)
    return None


def write(folder: Path, config: ModelConfig) -> None:
    """The files of `config.sentence`, for sentence-transformers of any version."""
    how = config.sentence
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * how.normalize
    theirs = {ours: mode for mode, ours in POOLING.items()}[how.pooling]
    files = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": _MODULES + kind}
            for i, kind in enumerate(kinds)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.d_model, **{key: mode == theirs for key, mode in _OLDER.items()},
        },
        "sentence_bert_config.json": {
            "max_seq_length": how.max_tokens or config.context, "do_lower_case": how.lower,
        },
        "config_sentence_transformers.json": {
            "prompts": dict(how.prompts), "default_prompt_name": how.prompt, "similarity_fn_name": "cosine",
        },
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _json(file: Path | None, kind: type):
    """The content of `file`; empty where there is no such file."""
    if file is None or not file.is_file():
        return kind()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{file}: not valid JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(content, kind):
        raise RequestError(f"{file}: must be a JSON {'list' if kind is list else 'object'}")
    return content
