"""What a server is told: which model, how it computes, and what a client may ask of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineSettings:
    """For the worker. `memory`: bytes for keys and values; None: half of what is free. `threads`: None leaves the
    number to PyTorch."""

    model: str
    dtype: str = "auto"
    device: str = "cpu"
    weights: str = "auto"
    deterministic: bool = False
    memory: int | None = None
    block: int = 16
    max_texts: int = 64
    step_tokens: int = 256
    prefix_cache: bool = True
    threads: int | None = None


@dataclass(frozen=True)
class Limits:
    """What clients may ask for. `keys`: None of them: everybody may. `queue`: texts that wait beside the `max_texts` that
    are written. Seconds: `request_seconds` for an answer, `body_seconds` for a body to arrive, `drain_seconds` for what
    runs when the server is told to stop. `prompt_tokens`: None: as many as the model reads."""

    keys: tuple[str, ...] = ()
    queue: int = 64
    streams_per_key: int = 64
    body_bytes: int = 8 << 20
    prompt_tokens: int | None = None
    request_seconds: float = 600.0
    body_seconds: float = 30.0
    drain_seconds: float = 30.0
    origins: tuple[str, ...] = ()
