"""The HTTP API: OpenAI's paths, a few of vLLM's, and what an operator asks for."""

import asyncio
import base64
import json

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from .. import __version__
from ..errors import RequestError
from . import answers, jobs, page, tools
from .answers import Answer
from .api import Api, EventStream, Handed
from .body import JsonRoute, invalid
from .engine_client import Gone
from .errors import ApiError, body
from .gate import Gate
from .metrics import TYPE
from .protocol import ChatRequest, CompletionRequest, DetokenizeRequest, EmbeddingRequest, Sampled, TokenizeRequest
from .worker import Ended, Job


def create(api: Api) -> Gate:
    """The application."""
    app = FastAPI(title="llmwright", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
                  description="A language model, by OpenAI's API.")
    router = APIRouter(route_class=JsonRoute)
    failures = {400: {"description": "The request is wrong."}, 429: {"description": "There is no room: try again later."},
                503: {"description": "The server is being started or stopped."}}

    @router.post("/v1/chat/completions", responses=failures)
    async def chat(wanted: ChatRequest, request: Request):
        """The answer to a conversation; with `stream`, as server-sent events."""
        api.check(wanted.model)
        api.admit(wanted.n, request)
        template = api.template()
        tools.check(wanted, template)
        job = await asyncio.to_thread(jobs.chat, wanted, api.client.about, api.limits, template)
        job = tools.constrain(wanted, job)
        _content(request, messages=[m.model_dump(exclude_none=True) for m in wanted.messages])
        return await answer(request, wanted, [job], ends={*api.client.about.ends, *job.stop_tokens}, chat=True)

    @router.post("/v1/completions", responses=failures)
    async def completions(wanted: CompletionRequest, request: Request):
        """How a text goes on; with `stream`, as server-sent events."""
        api.check(wanted.model)
        api.admit(len(wanted.prompts) * wanted.n, request)
        about = api.client.about
        made = await asyncio.to_thread(jobs.completions, wanted, about, api.limits)
        _content(request, prompt=wanted.prompt)
        before = None
        if wanted.echo:
            before = [p if isinstance(p, str) else about.tokenizer.decode(p) for p in wanted.prompts for _ in range(wanted.n)]
        return await answer(request, wanted, made, ends={*about.ends, *made[0].stop_tokens}, chat=False, before=before)

    async def answer(request: Request, wanted: Sampled, made: list[Job], *, ends, chat: bool, before=None):
        record = request.scope["llmwright"]
        record.told["stream"] = wanted.stream
        if wanted.user:
            record.told["user"] = wanted.user
        stream = api.submit(made, request)
        built = Answer(api.name, api.client.about.tokenizer, ends, stream.texts, chat=chat,
                       log_probs=made[0].log_probs, before=before)
        parser = tools.parser(wanted, api.template()) if chat else None
        handed = Handed(api, stream, request, built)
        if not wanted.stream:
            async with handed:
                while events := await stream.more():
                    for event in events:
                        built.take(stream.index(event), event)
                calls = [parser.split(choice.text) for choice in built.choices] if parser else None
                for choice, (_, found) in zip(built.choices, calls or ()):
                    choice.finish = "tool_calls" if found else choice.finish
                return _json(built.whole(built.usage(stream.prompt_tokens, stream.reused), calls))
        try:  # the first words decide whether it is an answer or an error
            first = await stream.more()
        except BaseException:
            handed.close()
            raise
        return EventStream(_events(handed, built, first, wanted.usage, parser), handed)

    @router.post("/v1/embeddings", responses=failures)
    async def embeddings(wanted: EmbeddingRequest, request: Request):
        """A vector for each text, from an encoder."""
        api.check(wanted.model, "encoder")
        width = wanted.dimensions
        if width:
            raise ApiError(400, "dimensions: this model's vectors are taken as they are: leave it out", param="dimensions",
                           code="unsupported_parameter")
        texts = [wanted.input] if isinstance(wanted.input, str) else wanted.input
        _content(request, input=texts)
        stream = api.submit([Job(0, [], 0, {})], request, "embed", (texts, None))
        async with Handed(api, stream, request):
            events = await stream.more()
            vectors, lengths = next(event.value for event in events if isinstance(event, Ended))
        api.metrics.prompt.inc(sum(lengths))
        request.scope["llmwright"].told["prompt_tokens"] = sum(lengths)
        plain = wanted.encoding_format == "float"
        data = [{"object": "embedding", "index": i, "embedding": vector.tolist() if plain else base64.b64encode(
            vector.astype("<f4").tobytes()).decode()} for i, vector in enumerate(vectors)]
        usage = {"prompt_tokens": sum(lengths), "total_tokens": sum(lengths)}
        return _json({"object": "list", "data": data, "model": api.name, "usage": usage})

    @router.get("/v1/models")
    async def models():
        """The models that this server has: one."""
        return _json({"object": "list", "data": [_model()]})

    @router.get("/v1/models/{name:path}")
    async def model(name: str):
        """What is known of a model."""
        if name != api.name:
            raise ApiError(404, f"model {name[:100]!r} does not exist here: there is {api.name!r}", param="model",
                           code="model_not_found")
        return _json(_model())

    def _model() -> dict:
        about = api.client.about
        known = {} if about is None else {
            "max_model_len": about.context, "kind": about.kind, "parameters": about.parameters, "dtype": about.dtype,
            "weights": about.weights, "deterministic": about.deterministic, "chat_defaults": about.chat_advice,
            "chat": about.kind == "decoder" and _has_template(api),
        }
        return {"id": api.name, "object": "model", "created": api.created, "owned_by": "llmwright", **known}

    @router.post("/tokenize")
    async def tokenize(wanted: TokenizeRequest):
        """The tokens of a text or a conversation, as the model reads them."""
        api.check(wanted.model, "any")
        about = api.client.about
        if wanted.messages is not None:
            template = api.template()
            ids = await asyncio.to_thread(jobs.chat_ids, wanted.messages, template,
                                          add_generation_prompt=wanted.add_generation_prompt)
        else:
            ids = await asyncio.to_thread(jobs.text_ids, wanted.prompt, about, wanted.add_special_tokens)
        ids = [int(i) for i in ids]
        strings = {"token_strs": [about.tokenizer.token_bytes(i).decode("utf-8", "replace") for i in ids]}
        return _json({"count": len(ids), "max_model_len": about.context, "tokens": ids,
                      **(strings if wanted.return_token_strs else {})})

    @router.post("/detokenize")
    async def detokenize(wanted: DetokenizeRequest):
        """The text of some tokens."""
        api.check(wanted.model, "any")
        try:
            return _json({"prompt": api.client.about.tokenizer.decode(wanted.tokens, skip_specials=False)})
        except RequestError as error:
            raise ApiError(400, f"tokens: {error}", param="tokens") from None

    @router.get("/health")
    async def health():
        """Whether the server and its engine are alive."""
        state = api.client.state
        if state in ("failed", "dead"):
            return JSONResponse({"status": state, "message": api.client.why}, 503)
        return JSONResponse({"status": "ok" if state == "ready" else state})

    @router.get("/ready")
    async def ready():
        """Whether requests are taken: the model is loaded, and the server is not being stopped."""
        state = "draining" if api.draining else api.client.state
        return JSONResponse({"status": state}, 200 if api.ready else 503)

    @router.get("/metrics", response_class=Response)
    async def metrics():
        """For Prometheus."""
        return Response(api.metrics.text(api.ready), media_type=TYPE)

    chat_page = page.chat_page()

    @router.get("/", include_in_schema=False)
    async def root():
        return HTMLResponse(chat_page[0], headers=chat_page[1])

    @router.get("/docs", include_in_schema=False)
    async def docs():
        text, headers = page.reference(app.openapi())
        return HTMLResponse(text, headers=headers)

    app.include_router(router)
    app.add_exception_handler(HTTPException, _error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Gone, _gone)
    if api.limits.origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(api.limits.origins), allow_methods=["GET", "POST"],
                           allow_headers=["authorization", "content-type", "x-request-id"],
                           expose_headers=["x-request-id", "retry-after"])
    return Gate(app, api.limits, api.metrics, api.log)


async def _events(handed: Handed, built: Answer, first: list, usage: bool, parser):
    """The answer as it comes. Where it fails on the way, the last event is the error."""
    stream = handed.stream
    holds = [parser.holder() for _ in built.choices] if parser else None
    begun = [not built.chat] * len(built.choices)
    try:
        events = first
        out = []
        while events:
            for event in events:
                index = stream.index(event)
                new = built.take(index, event)
                if not begun[index]:
                    begun[index] = True
                    out.append(built.chunk(index, "", [], None, usage=usage, role="assistant", content=""))
                piece, finish, extra = event.piece, event.finish, {}
                if built.before[index] and not built.chat:
                    piece, built.before[index] = built.before[index] + piece, ""
                if holds:
                    piece, calls = holds[index].take(piece, finish is not None)
                    if calls:
                        extra = {"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]}
                        finish = built.choices[index].finish = "tool_calls"
                if piece or new or extra:
                    out.append(built.chunk(index, piece, new, None, usage=usage, **extra))
                if finish:
                    out.append(built.chunk(index, "", [], finish, usage=usage))
            if stream.over:
                break
            if out:
                yield b"".join(out)
                out = []
            events = await stream.more()
        handed.close()  # whoever has read the end finds it counted
        if usage:
            out.append(built.last(built.usage(stream.prompt_tokens, stream.reused)))
        yield b"".join(out) + answers.DONE
    except ApiError as error:
        yield answers.event(error.body)


def _has_template(api: Api) -> bool:
    try:
        return api.template() is not None
    except (ApiError, RequestError):
        return False


def _content(request: Request, **what) -> None:
    request.scope["llmwright"].content |= what


def _json(data: dict) -> Response:
    return Response(json.dumps(data, separators=(",", ":"), allow_nan=False), media_type="application/json")


async def _gone(request: Request, error: Gone) -> Response:
    return Response(status_code=499)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return await _error(request, invalid(error.errors()))


async def _error(request: Request, error: HTTPException) -> Response:
    record = request.scope["llmwright"]
    status, headers = error.status_code, dict(error.headers or {})
    if isinstance(error, ApiError):
        content, record.reason = error.body, record.reason or error.reason
    else:
        message = {404: f"there is no {request.url.path[:200]} here; /docs lists what there is",
                   405: f"{request.method} is not for {request.url.path[:200]}"}.get(status, str(error.detail))
        content = body(status, message)
    record.error = record.error or content["error"]["message"]
    return JSONResponse(content, status, headers)
