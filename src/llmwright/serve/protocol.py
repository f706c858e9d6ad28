"""What a client may send. A parameter is honoured or refused by name, never ignored.

The names and ranges are OpenAI's; `top_k`, `min_p`, `repetition_penalty`, `min_tokens`, `ignore_eos`, `stop_token_ids`,
`bad_words`, `add_generation_prompt`, `continue_final_message` and `chat_template_kwargs` are those that vLLM adds.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# What OpenAI's API has and this server has not, with the values that ask for nothing: these are taken, others refused.
NOTHING = {
    "best_of": (1,), "suffix": ("",), "store": (False,), "service_tier": ("auto", "default"), "modalities": (["text"],),
    "parallel_tool_calls": (True,), "metadata": ({},), "functions": ([],), "function_call": ("none",), "audio": (),
    "prediction": (), "reasoning_effort": (), "verbosity": (), "web_search_options": (), "prompt_cache_key": (),
    "safety_identifier": (), "use_beam_search": (False,), "length_penalty": (1, 1.0), "typical_p": (1, 1.0),
}

Count = Annotated[int, Field(ge=1, le=2**31)]
TokenId = Annotated[int, Field(ge=0, le=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _nothing(cls, data: Any) -> Any:
        """Without what asks for nothing: null, and a default written out."""
        if not isinstance(data, dict):
            return data
        return {
            name: value for name, value in data.items()
            if not (value is None or (name in NOTHING and any(value is v or value == v for v in NOTHING[name])))
            or name not in (*NOTHING, *cls.model_fields)
        }


class StreamOptions(Strict):
    include_usage: bool = False


class JsonSchema(Strict):
    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    schema_: dict = Field(alias="schema")
    strict: bool | None = None


class Grammar(Strict):
    """A grammar that the whole answer follows: "lark" (llguidance's dialect of Lark) or "regex"."""

    syntax: Literal["lark", "regex"]
    definition: str = Field(min_length=1, max_length=100_000)


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema", "grammar"]
    json_schema: JsonSchema | None = None
    grammar: Grammar | None = None

    @model_validator(mode="after")
    def _whole(self):
        for name in ("json_schema", "grammar"):
            if (getattr(self, name) is not None) != (self.type == name):
                raise ValueError(f"{name} is missing, which the type {name!r} needs" if self.type == name else
                                 f"{name} is for the type {name!r}, and this is {self.type!r}")
        return self


class Sampled(Strict):
    """What both kinds of completion take."""

    model: str
    max_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=128)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    bad_words: Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=256)] | None = None
    stop: Annotated[str, Field(min_length=1, max_length=1000)] | Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=256)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=2**31)] = 0
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    user: Annotated[str, Field(max_length=256)] | None = None

    @field_validator("logit_bias")
    @classmethod
    def _ids(cls, bias: dict | None) -> dict | None:
        for key in bias or ():
            if not (key.isascii() and key.isdecimal() and len(key) < 10):
                raise ValueError(f"{key[:40]!r} is no token id")
        return bias

    @model_validator(mode="after")
    def _together(self):
        if self.stream_options and not self.stream:
            raise ValueError("stream_options belong to stream: true")
        return self

    @property
    def usage(self) -> bool:
        """Whether the end of a stream tells the number of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionRequest(Sampled):
    prompt: str | list[str] | TokenIds | list[TokenIds]
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=2**31)] | None = None  # 0 with echo: the prompt alone

    @property
    def prompts(self) -> list[str | list[int]]:
        given = self.prompt
        return given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]


class Part(Strict):
    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Strict):
    name: str = Field(min_length=1, max_length=256)
    arguments: str = "{}"


class ToolCall(Strict):
    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _whole(self):
        if self.content is None and not self.tool_calls:
            raise ValueError("a message needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("tool_calls are an assistant's")
        return self


class Function(Strict):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")
    description: str | None = None
    parameters: dict | None = None
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    name: str


class ToolChoice(Strict):
    type: Literal["function"]
    function: NamedFunction


class ChatRequest(Sampled):
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _chat(self):
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs belongs to logprobs: true")
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens contradict each other: leave one out")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise ValueError("tool_choice needs tools")
        return self


class EmbeddingRequest(Strict):
    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = None
    user: Annotated[str, Field(max_length=256)] | None = None


class TokenizeRequest(Strict):
    """A `prompt`, or `messages` as the model's chat template writes them."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one(self):
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give prompt or messages, one of them")
        return self


class DetokenizeRequest(Strict):
    model: str | None = None
    tokens: Annotated[list[TokenId], Field(max_length=1_000_000)]
