"""From the bytes of a body to a request, or an error that names what is wrong with it."""

import json

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import ValidationError

from .errors import ApiError
from .protocol import NOTHING

FORMS = ("str", "int", "float", "bool", "dict", "ToolChoice", "constrained-str", "constrained-int")  # pydantic's words


class JsonRequest(Request):
    """Reads JSON as the standard has it: no NaN, no infinities, no half of a surrogate pair, nothing nested without end."""

    async def json(self):
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


class JsonRoute(APIRoute):
    def get_route_handler(self):
        handler = super().get_route_handler()

        async def handle(request: Request):
            return await handler(JsonRequest(request.scope, request.receive))

        return handle


def parse(content: bytes):
    """Raises ApiError."""
    try:
        text = content.decode("utf-8")
        found = json.loads(text, parse_constant=_no_constant)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: byte {error.start}", code="invalid_json") from None
    except UnicodeEncodeError:
        raise ApiError(400, "the body holds half of a surrogate pair (\\ud800 to \\udfff)", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deep", code="invalid_json") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {str(error)[:200]}", code="invalid_json") from None


def _no_constant(name: str):
    raise ValueError(f"{name} is no JSON")


def invalid(errors: list[dict]) -> ApiError:
    """What pydantic found, as one error: the first that lies deepest, since of a choice of forms the nearest one knows
    best."""
    error = max(errors, key=lambda e: (e["type"] == "extra_forbidden", len(e["loc"])))
    param = _path([part for part in error["loc"] if part != "body"])
    message, name = error["msg"].removeprefix("Value error, "), str(error["loc"][-1]) if error["loc"] else ""
    code = "invalid_value"
    if error["type"] == "extra_forbidden":
        code = "unsupported_parameter" if name in NOTHING else "unknown_parameter"
        why = "this server does not support it" if name in NOTHING else "there is no such parameter"
        message = f"{why}: leave it out"
    elif error["type"] == "missing":
        code, message = "missing_parameter", "it is required"
    elif error["type"] in ("json_invalid", "model_attributes_type", "dict_type") and not param:
        message = "the body has to be a JSON object"
    return ApiError(400, f"{param}: {message}" if param else message, param=param or None, code=code)


def check(model, data):
    """`data` as the pydantic `model`; raises ApiError."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


def _path(parts: list) -> str:
    """messages, 0, content → messages[0].content; names of pydantic's own kinds of choice are left out."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in FORMS and not any(sign in part for sign in "[](){}"):
            path += f".{part}" if path else part
    return path[:200]
