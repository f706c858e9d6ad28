"""A model from the Hugging Face hub: which of its files are wanted, and what the hub says their checksums are.

The hub's library finds the repository and signs in (HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE hold as everywhere); the
bytes come through `download.py`, like all others. Wanted are configuration, tokenizer, chat template and weights.
Weights are safetensors; where there are none, a GGUF file, and a pickle only where there is nothing else (it is read by
a loader that runs nothing). Python files are never brought: a repository's own code is not run here.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import RequestError
from .web import Item, Unreachable, reason

SMALL = re.compile(
    r"config\.json|generation_config\.json|adapter_config\.json|tokenizer\.json|tokenizer_config\.json"
    r"|special_tokens_map\.json|added_tokens\.json|vocab\.(txt|json|bpe)|merges\.txt|[\w.-]+\.(model|spm)"
    r"|chat_template\.(jinja|json)|additional_chat_templates/[\w.-]+\.jinja|modules\.json"
    r"|sentence_bert_config\.json|config_sentence_transformers\.json|\d_\w+/(config\.json|model\.safetensors)"
    r"|(LICENSE|LICENCE|NOTICE|USE_POLICY|README)(\.(md|txt))?", re.ASCII)
PICKLES = (r"pytorch_model\.bin", r"pytorch_model(-\d{5}-of-\d{5}\.bin|\.bin\.index\.json)")
SAFETENSORS = (r"model\.safetensors", r"model(-\d{5}-of-\d{5}\.safetensors|\.safetensors\.index\.json)")


@dataclass(frozen=True)
class Found:
    """What a repository offers: the files wanted of it, at one commit."""

    repository: str
    commit: str
    licence: str | None
    items: tuple[Item, ...]


def find(name: str) -> Found:
    """The files of `owner/name`, or of `owner/name:FILE` where FILE says which GGUF file (its name or a part of it,
    like Q4_K_M). Raises Unreachable when the hub does not tell, RequestError when there is nothing we want."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    from .. import __version__

    repository, _, wanted = name.partition(":")
    try:
        info = HfApi(library_name="llmwright", library_version=__version__).model_info(
            repository, files_metadata=True, timeout=20)
    except Exception as error:  # of several libraries: the hub's, and whichever HTTP client it uses
        raise Unreachable(_why(error, repository, constants.ENDPOINT)) from None
    files = {file.rfilename: file for file in info.siblings or []}
    headers = build_hf_headers(library_name="llmwright", library_version=__version__)
    items = []
    for file in choose(list(files), wanted, repository):
        entry = files[file]
        digest, algorithm = (entry.lfs.sha256, "sha256") if entry.lfs else (entry.blob_id, "git")
        if not isinstance(entry.size, int) or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest or ""):
            raise Unreachable(f"tells no size and checksum of {file}")
        url = hf_hub_url(repository, file, revision=info.sha)
        items.append(Item(file, url, entry.size, digest, algorithm, headers))
    licence = next((tag[8:] for tag in info.tags or [] if tag.startswith("license:")), None)
    return Found(repository, info.sha or "main", licence, tuple(items))


def shown() -> str:
    """The hub, for a message."""
    from huggingface_hub import constants

    return f"The hub ({urlsplit(constants.ENDPOINT).hostname})"


def choose(files: list[str], wanted: str = "", repository: str = "") -> list[str]:
    """Of all the files of a repository, those to bring. Raises RequestError when no weights are among them."""
    small = [file for file in files if SMALL.fullmatch(file)]
    gguf = [file for file in files if file.lower().endswith(".gguf")]
    if wanted:
        gguf = [f for f in gguf if f == wanted] or [f for f in gguf if wanted.lower() in f.lower()]
        if not gguf:
            raise RequestError(f"{repository}: no GGUF file there is named like {wanted!r}")
    for whole, shards in () if wanted else (SAFETENSORS, PICKLES):
        weights = [f for f in files if re.fullmatch(whole, f)] or [f for f in files if re.fullmatch(shards, f)]
        adapter = [f for f in files if f == "adapter_model.safetensors"]
        if weights or adapter:
            return sorted(small + weights + adapter)
        if whole is SAFETENSORS[0] and gguf:
            break
    if len(gguf) > 1:
        shown = ", ".join(sorted(gguf)[:4]) + (f" and {len(gguf) - 4} more" if len(gguf) > 4 else "")
        raise RequestError(f"{repository}: which of its GGUF files? llmwright pull {repository}:NAME, with a NAME that "
                           f"fits one of {shown}")
    if not gguf:
        raise RequestError(f"{repository}: no weights there that are read here (safetensors, GGUF, pytorch_model.bin)")
    return sorted([f for f in small if "/" not in f] + gguf)


def _why(error: Exception, repository: str, endpoint: str) -> str:
    """The hub's refusal in a few words."""
    kind = type(error).__name__
    if kind == "GatedRepoError":
        where = f"{endpoint}/{repository}"
        return f"gives it only to those who accepted its licence: {where}, then HF_TOKEN or hf auth login"
    if kind == "RepositoryNotFoundError":
        return f"has no model {repository} (or a private one: HF_TOKEN or hf auth login)"
    if kind == "OfflineModeIsEnabled":
        return "is not to be asked: HF_HUB_OFFLINE is set"
    code = getattr(getattr(error, "response", None), "status_code", None)
    return f"answers {code}" if code else reason(error)
