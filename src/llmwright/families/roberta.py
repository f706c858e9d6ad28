"""RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020): BERT's body, one token type, positions that begin
after the padding token's id (so at row 2 of the table, as fairseq counts them), and a head with names of its own."""

from ..errors import RequestError
from ..model.config import ModelConfig
from . import bert
from .family import Family
from .names import Rule


HEAD_ACTIVATION = "gelu"  # whatever the blocks' is


def _family(model_type: str, name: str) -> Family:
    architectures = {f"{name}Model": (True, False), f"{name}ForMaskedLM": (False, True)}

    def read(c: dict) -> ModelConfig:
        c = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, **c}
        pad = c["pad_token_id"]
        if pad is not None and (type(pad) is not int or pad < 0):
            raise RequestError(f"config.json: pad_token_id = {pad!r} is not allowed: positions count from it on")
        return bert.read_encoder(
            c, family=model_type, architectures=architectures, first_position=1 if pad is None else pad + 1,
            head_activation=HEAD_ACTIVATION,
        )

    def write(config: ModelConfig) -> dict:
        return bert.write_encoder(config, architectures)

    return Family(
        model_type, f"{name}ForMaskedLM", read, write, _rules, prefix="roberta.",
        ignored=("position_ids", "pooler.dense.weight", "pooler.dense.bias"),
        tied=("lm_head.decoder.weight", "lm_head.decoder.bias"), fit=_fit,
    )


def _fit(config: ModelConfig, names: set[str]) -> ModelConfig:
    return bert.fit(config, names, "lm_head.", HEAD_ACTIVATION)


def _rules(config: ModelConfig) -> list[Rule]:
    return bert.body(config, "roberta.") + bert.head(
        config, "lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder"
    )


ROBERTA = _family("roberta", "Roberta")
XLM_ROBERTA = _family("xlm-roberta", "XLMRoberta")
