"""Errors as OpenAI's clients know them: {"error": {"message", "type", "param", "code"}} with a status that fits."""

import json

from fastapi import HTTPException

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """An answer that is an error. `reason` is what metrics count it under."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, reason: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(status, message, headers)
        self.param, self.code, self.reason = param, code, reason or reason_of(status)

    @property
    def body(self) -> dict:
        return body(self.status_code, self.detail, self.param, self.code)


def body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict:
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def encoded(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    return json.dumps(body(status, message, param, code)).encode()


def reason_of(status: int) -> str:
    """What a failure counts as where nothing more exact is known."""
    return {401: "unauthorized", 404: "not_found", 408: "timeout", 413: "too_large", 429: "too_many", 503: "unavailable",
            504: "timeout"}.get(status, "bad_request" if status < 500 else "engine")
