"""From what a client sent to jobs for the engine: text to ids, settings with their defaults, and whether it fits.

Defaults are OpenAI's (temperature 1, nothing cut), except where the model's generation_config.json says how to draw. A
conversation of which nothing is said is answered as `llmwright chat` does.
"""

import json
from dataclasses import replace

from ..errors import RequestError
from ..tokens.chat_template import ChatTemplate
from . import structured
from .errors import ApiError
from .protocol import ChatRequest, CompletionRequest, Message, Sampled
from .settings import Limits
from .worker import ADVISED, About, Job

DEFAULT_COMPLETION = 16  # tokens, as OpenAI's /v1/completions


def completions(request: CompletionRequest, about: About, limits: Limits) -> list[Job]:
    """A job for each prompt. Raises ApiError."""
    found = []
    if request.max_tokens == 0 and not request.echo:
        raise ApiError(400, "max_tokens: 0 is for a prompt alone, with echo: true; else it must be at least 1",
                       param="max_tokens")
    several = isinstance(request.prompt, list)
    for i, prompt in enumerate(request.prompts):
        where = f"prompt[{i}]" if several and len(request.prompts) > 1 else "prompt"
        ids = text_ids(prompt, about) if isinstance(prompt, str) else _known(prompt, about, where)
        if not ids:
            raise ApiError(400, f"{where}: it is empty, and this model has no beginning-of-text token", param="prompt")
        room = _room(ids, about, limits, where, request.max_tokens != 0)
        most = min(DEFAULT_COMPLETION, room) if request.max_tokens is None else request.max_tokens
        made = _job(request, ids, most, room, about, request.logprobs is not None, request.logprobs or 0)
        if request.echo and (request.logprobs is not None or not most):
            made = replace(made, prompt_log_probs=request.logprobs or 0)
        found.append(made)
    if not found:
        raise ApiError(400, "prompt: it is an empty list", param="prompt")
    return found


def chat(request: ChatRequest, about: About, limits: Limits, template: ChatTemplate) -> Job:
    """Raises ApiError."""
    go_on = request.continue_final_message
    ids = chat_ids(
        request.messages, template, tools=tools(request),
        add_generation_prompt=not go_on if request.add_generation_prompt is None else request.add_generation_prompt,
        continue_final_message=go_on, **_options(request),
    )
    room = _room(ids, about, limits, "messages")
    wanted = request.max_completion_tokens or request.max_tokens
    return _job(request, ids, wanted or room, room, about, request.logprobs, request.top_logprobs or 0, template.ends)


def text_ids(text: str, about: About, begin: bool = True) -> list[int]:
    """The ids of a text to go on with, with what the tokenizer puts before it."""
    ids, first = about.tokenizer.encode(text), about.tokenizer.bos_id
    return [first, *ids] if begin and first is not None and (about.begins or not ids) else list(ids)


def chat_ids(messages: list[Message], template: ChatTemplate, **options) -> list[int]:
    try:
        return template.encode([_plain(message) for message in messages], **options)
    except RequestError as error:
        raise ApiError(400, str(error), param="messages", code="invalid_messages") from None


def tools(request: ChatRequest) -> list[dict] | None:
    if not request.tools or request.tool_choice == "none":
        return None
    return [tool.model_dump(exclude_none=True) for tool in request.tools]


def _options(request: ChatRequest) -> dict:
    """For the template; none that this server sets itself."""
    given = request.chat_template_kwargs or {}
    taken = {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"} & set(given)
    if taken:
        name = min(taken)
        raise ApiError(400, f"chat_template_kwargs.{name}: give {name} beside it, not in it", param="chat_template_kwargs")
    return given


def _plain(message: Message) -> dict:
    """A message as templates know them: content is text, arguments of calls are tables."""
    made = message.model_dump(exclude_none=True)
    if isinstance(message.content, list):
        made["content"] = "\n".join(part.text or part.refusal or "" for part in message.content)
    if message.role == "developer":  # OpenAI's newer name; templates know the older one
        made["role"] = "system"
    for call in made.get("tool_calls", ()):
        try:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        except (ValueError, RecursionError):
            pass  # then it stays text
    return made


def _known(ids: list[int], about: About, where: str) -> list[int]:
    size = about.tokenizer.vocab_size
    for i in ids:
        if i >= size:
            raise ApiError(400, f"{where}: there is no token {i}: the vocabulary goes to {size - 1}", param="prompt")
    return ids


def _room(ids: list[int], about: About, limits: Limits, where: str, answered: bool = True) -> int:
    """How many tokens may follow. Raises ApiError where there is no room for one, or, of a prompt that is not `answered`,
    for itself."""
    most = about.longest if answered else about.context
    longest = min(most, limits.prompt_tokens or most)
    if len(ids) > longest:
        why = ("reads" if longest == most else "may be given here") + " before an answer" * answered
        raise ApiError(400, f"{where}: {len(ids):,} tokens, more than the {longest:,} that the model {why}",
                       param=where.partition("[")[0], code="context_length_exceeded")
    room = min(about.context, about.room + 1) - len(ids)
    if room < 1 and (answered or len(ids) > about.room):
        raise ApiError(400, f"{where}: {len(ids):,} tokens do not fit into the cache of keys and values, which has room "
                       f"for {about.room:,}", param=where.partition("[")[0], code="context_length_exceeded")
    return room


def _job(
    request: Sampled, ids: list[int], max_tokens: int, room: int, about: About, log_probs: bool, top: int,
    stop_tokens: tuple[int, ...] = (),
) -> Job:
    if max_tokens > room:
        raise ApiError(
            400, f"max_tokens: {max_tokens:,} after a prompt of {len(ids):,} tokens are more than there is room for, which "
            f"is {room + len(ids):,} in all: ask for {room:,} at most", param="max_tokens", code="context_length_exceeded")
    if request.min_tokens > max_tokens:
        raise ApiError(400, f"min_tokens: {request.min_tokens:,} are more than max_tokens, {max_tokens:,}",
                       param="min_tokens")
    stop = request.stop or ()
    return Job(
        0, ids, max_tokens, sampling(request, about, max_tokens), request.n, (stop,) if isinstance(stop, str) else tuple(stop),
        (*stop_tokens, *(request.stop_token_ids or ())), log_probs, top, structured.grammar(request.response_format),
    )


def sampling(request: Sampled, about: About, max_tokens: int) -> dict:
    """The fields of `engine.sampler.Sampling`."""
    asked = {name: getattr(request, name) for name in ADVISED}
    asked = {name: value for name, value in asked.items() if value is not None}
    usual = about.advice if asked or not isinstance(request, ChatRequest) else about.chat_advice
    found = {"temperature": 1.0, **usual, **asked}
    found |= dict(
        presence_penalty=request.presence_penalty, frequency_penalty=request.frequency_penalty,
        min_tokens=max_tokens if request.ignore_eos else request.min_tokens,
    )
    if request.seed is not None:
        found["seed"] = request.seed % 2**63
    if request.logit_bias:
        found["logit_bias"] = {int(key): value for key, value in request.logit_bias.items()}
    if request.bad_words:
        found["bad_words"] = request.bad_words
    return found
