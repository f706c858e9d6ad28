"""Tool calls in what a model wrote, for templates that know tools; and answers that have to be one.

Two ways of writing them are known, by the text of the template: `<tool_call>{"name", "arguments"}</tool_call>` (Hermes,
Qwen, SmolLM) and a bare JSON object {"name", "parameters"} (Llama 3.1).
"""

import json
import re
import secrets
from dataclasses import dataclass, replace

from .errors import ApiError
from .protocol import ChatRequest, ToolChoice
from .worker import Job

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def check(wanted: ChatRequest, template) -> None:
    """Raise ApiError for tools that this model's template has no place for."""
    if wanted.tools and wanted.tool_choice != "none":
        if _form(template) is None:
            raise ApiError(400, "tools: this model's chat template has no place for tools, or writes calls in a way that "
                           "is not known here", param="tools", code="unsupported_parameter")
        names = [tool.function.name for tool in wanted.tools]
        choice = wanted.tool_choice
        if isinstance(choice, ToolChoice) and choice.function.name not in names:
            raise ApiError(400, f"tool_choice: {choice.function.name!r} is none of the tools", param="tool_choice")
        forced = isinstance(choice, ToolChoice) or choice == "required"
        if forced and wanted.response_format and wanted.response_format.type != "text":
            raise ApiError(400, "tool_choice and response_format contradict each other: leave one out", param="tool_choice")


def constrain(wanted: ChatRequest, job: Job) -> Job:
    """Where a call is demanded, the job with a grammar that allows nothing else."""
    choice = wanted.tool_choice
    if not (choice == "required" or isinstance(choice, ToolChoice)):
        return job
    from . import structured

    chosen = [tool.function for tool in wanted.tools if choice == "required" or tool.function.name == choice.function.name]
    forms = [
        {"type": "object", "properties": {"name": {"const": f.name}, "arguments": f.parameters or {"type": "object"}},
         "required": ["name", "arguments"], "additionalProperties": False}
        for f in chosen
    ]
    schema = {**(forms[0] if len(forms) == 1 else {"anyOf": forms}), "x-guidance": structured.COMPACT}
    made = structured.lark(f'start: "{OPEN}" /\\n?/ call /\\n?/ "{CLOSE}"\ncall: %json {json.dumps(schema)}', "tools")
    return replace(job, grammar=made)


def parser(wanted: ChatRequest, template) -> "Parser | None":
    """None where no tools were given."""
    if not wanted.tools or wanted.tool_choice == "none":
        return None
    forced = wanted.tool_choice == "required" or isinstance(wanted.tool_choice, ToolChoice)
    return Parser("tags" if forced else _form(template), {tool.function.name for tool in wanted.tools})


def _form(template) -> str | None:
    source = template.tokenizer.config.get("chat_template")
    source = source if isinstance(source, str) else json.dumps(source)
    if "tools" not in source:
        return None
    if OPEN in source:
        return "tags"
    return "json" if '"parameters"' in source or "python_tag" in source else None


@dataclass(frozen=True)
class Parser:
    form: str
    names: set[str]

    def split(self, text: str) -> tuple[str, list[dict]]:
        """The text without its calls, and the calls. What is no proper call of a tool that there is stays text."""
        if self.form == "json":
            call = self._call(text.strip())
            return ("", [call]) if call else (text, [])
        found = []

        def take(match: re.Match) -> str:
            call = self._call(match[1])
            if call:
                found.append(call)
            return "" if call else match[0]

        rest = re.sub(rf"{OPEN}(.*?)(?:{CLOSE}|\Z)", take, text, flags=re.S)
        return (rest.strip() if found else text), found

    def holder(self) -> "Holder":
        return Holder(self)

    def _call(self, text: str) -> dict | None:
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(data, dict) or data.get("name") not in self.names:
            return None
        arguments = data.get("arguments", data.get("parameters", {}))
        if not isinstance(arguments, (dict, str)):
            return None
        arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return {"id": f"call_{secrets.token_hex(12)}", "type": "function",
                "function": {"name": data["name"], "arguments": arguments}}


class Holder:
    """Of a stream: what may be the beginning of a call is held back until it is clear."""

    def __init__(self, parser: Parser):
        self.parser, self.text = parser, ""

    def take(self, piece: str, last: bool) -> tuple[str, list[dict]]:
        """(text to send now, calls)"""
        self.text += piece
        if last:
            text, calls = self.parser.split(self.text)
            self.text = ""
            return text, calls
        at = self._certain()
        now, self.text = self.text[:at], self.text[at:]
        return now, []

    def _certain(self) -> int:
        """How many characters cannot belong to a call."""
        if self.parser.form == "json":
            return 0 if not self.text.strip() or self.text.lstrip().startswith("{") else len(self.text)
        at = self.text.find(OPEN)
        if at >= 0:
            return at
        return len(self.text) - next((n for n in range(min(len(OPEN) - 1, len(self.text)), 0, -1)
                                      if OPEN.startswith(self.text[-n:])), 0)
