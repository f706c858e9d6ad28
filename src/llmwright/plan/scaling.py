"""How large a model and how many tokens a budget should buy (Hoffmann et al. 2022, "Chinchilla").

Two answers, since they differ: the rule that training tokens should be 20 times the parameters, and the parametric
law L(N, D) = E + A/N^α + B/D^β minimized under 6·N·D = C (their section 3.3, equations 4, with their constants or the
corrected fit by Besiroglu et al. 2024). Losses are nats a token on the paper's web text and tokenizer: compare them
with each other, not with a loss of yours.
"""

from dataclasses import dataclass

TOKENS_PER_PARAMETER = 20.0


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A/N^alpha + B/D^beta. N parameters, D training tokens."""

    name: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, params: float, tokens: float) -> float:
        """Predicted loss in nats a token."""
        return self.E + self.A / params**self.alpha + self.B / tokens**self.beta

    # N = G·(C/6)^a and D = (C/6)^b / G minimize the loss at 6·N·D = C (Hoffmann et al. 2022, equation 4)
    @property
    def _g(self) -> float:
        return (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))

    @property
    def _a(self) -> float:
        return self.beta / (self.alpha + self.beta)

    def from_compute(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) with the least loss for `flops`."""
        params = self._g * (flops / 6) ** self._a
        return params, flops / 6 / params

    def tokens_for(self, params: float) -> float:
        """The tokens whose best model has `params` parameters."""
        return (params / self._g) ** (1 / self._a) / params

    def params_for(self, tokens: float) -> float:
        """The parameters whose best token count is `tokens`."""
        return (tokens * self._g) ** (1 / (1 - self._a)) / tokens


HOFFMANN = Law("Hoffmann et al. 2022", E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
BESIROGLU = Law("Besiroglu et al. 2024", E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)


def tokens_for(params: float) -> float:
    """20 tokens a parameter."""
    return TOKENS_PER_PARAMETER * params


def params_for(tokens: float) -> float:
    """A parameter for 20 tokens."""
    return tokens / TOKENS_PER_PARAMETER


def from_compute(flops: float) -> tuple[float, float]:
    """(parameters, tokens) at 20 tokens a parameter and 6·N·D = `flops`: N = √(C/120)."""
    params = (flops / (6 * TOKENS_PER_PARAMETER)) ** 0.5
    return params, TOKENS_PER_PARAMETER * params


@dataclass(frozen=True)
class Optimum:
    """One answer: parameters, tokens, their 6·N·D in FLOPs, and the refit law's loss for them."""

    rule: str
    params: float
    tokens: float
    flops: float
    loss: float


def optima(*, params: float | None = None, tokens: float | None = None, flops: float | None = None) -> list[Optimum]:
    """The compute-optimal models for exactly one given quantity, by the rule of 20 and by both fits of the law."""
    found = []
    for name, rule in (("20 tokens a parameter", None), (HOFFMANN.name, HOFFMANN), (BESIROGLU.name, BESIROGLU)):
        if params is not None:
            n, d = params, (rule.tokens_for if rule else tokens_for)(params)
        elif tokens is not None:
            n, d = (rule.params_for if rule else params_for)(tokens), tokens
        else:
            n, d = (rule.from_compute if rule else from_compute)(flops)
        found.append(Optimum(name, n, d, 6 * n * d, BESIROGLU.loss(n, d)))
    return found
