"""One line of JSON for each request, on stderr. What people wrote and what they were told is in it only if asked for."""

import json
import random
import sys
import threading
import time
from dataclasses import dataclass, field


_random = random.Random()  # names are told apart by it, nothing is kept secret


def fresh_name() -> str:
    """One that nothing else has."""
    return f"{_random.getrandbits(96):024x}"


@dataclass
class Record:
    """What is known of a request; the log's line is made of it at its end."""

    id: str
    method: str
    path: str
    begun: float = field(default_factory=time.monotonic)
    status: int | None = None
    key: int | None = None  # which of the API keys
    reason: str | None = None  # why it failed
    error: str | None = None
    told: dict = field(default_factory=dict)  # tokens, times, finish reason: of what reached the engine
    content: dict = field(default_factory=dict)  # prompt and text

    def engine(self, stream, finish: list[str | None]) -> None:
        """What the engine did for it."""
        def since(time_: float | None) -> float | None:
            return None if time_ is None else round(time_ - stream.made, 6)

        self.told |= {
            "prompt_tokens": stream.prompt_tokens, "cached_tokens": stream.reused, "tokens": stream.written,
            "queue_s": since(stream.started), "first_token_s": since(stream.first_token),
            "finish_reason": finish[0] if len(finish) == 1 else finish,
        }


class Log:
    """`prompts`: whether the text of requests and answers is written too."""

    def __init__(self, out=None, prompts: bool = False):
        self.out, self.prompts, self.lock = out or sys.stderr, prompts, threading.Lock()

    def request(self, record: Record) -> None:
        self.write({
            "event": "request", "id": record.id, "method": record.method, "path": record.path, "status": record.status,
            **record.told, "total_s": round(time.monotonic() - record.begun, 6),
            **({"key": record.key} if record.key is not None else {}),
            **({"reason": record.reason} if record.reason else {}),
            **({"error": record.error} if record.error and (self.prompts or (record.status or 0) >= 500) else {}),
            **(record.content if self.prompts else {}),
        })

    def write(self, line: dict) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03d}Z"
        try:
            with self.lock:
                self.out.write(json.dumps({"time": stamp, **line}) + "\n")
                self.out.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more; answers matter more
