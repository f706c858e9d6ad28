"""Mixtral (Jiang et al. 2024): Mistral with a sparse mixture of experts in the place of each feed-forward.

An expert's three matrices are stored as w1 (gate), w3 (up) and w2 (down), each expert by itself.
"""

from ..model.config import Experts, ModelConfig
from . import llama
from .family import Family, need, number, refuse
from .mistral import sliding
from .names import Rule, rule


def _read(c: dict) -> ModelConfig:
    refuse(c, "router_jitter_noise", (0, None))
    experts = Experts(
        need({"num_local_experts": 8, **c}, "num_local_experts"), need({"num_experts_per_tok": 2, **c}, "num_experts_per_tok"),
        balance_loss=_weight(c, "router_aux_loss_coef", 0.001), z_loss=_weight(c, "router_z_loss_coef", 0.0),
    )
    return llama.compose(
        c, "mixtral", llama.attention(c), knows=("sliding_window", "num_local_experts"), context=131_072, theta=1e6,
        eps=1e-5, windows=sliding(c, window=None), experts=experts,
    )


def _weight(c: dict, key: str, default: float) -> float:
    return 0.0 if c.get(key) == 0 else number(c, key, default)


def _write(config: ModelConfig) -> dict:
    e = config.experts
    return {
        **llama.write(config),
        "sliding_window": config.windows[0] if config.windows else None,
        "num_local_experts": e.n_experts,
        "num_experts_per_tok": e.n_active,
        "router_aux_loss_coef": e.balance_loss,
        "router_z_loss_coef": e.z_loss,  # ours: no published configuration has it
        "output_router_logits": False,
        "router_jitter_noise": 0.0,
    }


def _experts(config: ModelConfig, theirs: str, ours: str) -> list[Rule]:
    theirs, ours = f"{theirs}.block_sparse_moe", f"{ours}.feed_forward"
    made = [rule(f"{theirs}.gate.weight", f"{ours}.router.weight")]
    for e in range(config.experts.n_experts):
        for t, o in (("w1", "gate"), ("w2", "down"), ("w3", "up")):
            made.append(rule(f"{theirs}.experts.{e}.{t}.weight", f"{ours}.experts.{e}.{o}.weight"))
    return made


def _rules(config: ModelConfig) -> list[Rule]:
    return llama.rules(config, feed_forward=_experts)


MIXTRAL = Family("mixtral", "MixtralForCausalLM", _read, _write, _rules, prefix="model.", ignored=llama.IGNORED)
