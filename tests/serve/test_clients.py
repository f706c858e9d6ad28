"""The clients that people have: they are told another address, and work."""

import json
import os
import subprocess
from pathlib import Path

import pytest

openai = pytest.importorskip("openai", reason="needs the openai package")
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "import os"}]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_openai_s_client_chats_streams_and_completes(client):
    assert [m.id for m in client.models.list()] == ["m"]
    how = dict(model="m", messages=CHAT, max_completion_tokens=12, seed=1, temperature=0.8)
    whole = client.chat.completions.create(**how, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.content and len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    with client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    done = client.completions.create(model="m", prompt=["import", "def"], max_tokens=5, echo=True)
    assert [c.text.startswith(p) for c, p in zip(done.choices, ("import", "def"))] == [True, True]


def test_openai_s_client_parses_a_schema(client):
    from pydantic import BaseModel, Field

    class Answer(BaseModel):
        yes: bool
        number: int = Field(ge=0, le=99)  # bounded: a random model may write digits without end

    found = client.chat.completions.parse(model="m", messages=CHAT, response_format=Answer, max_tokens=100, temperature=0)
    assert isinstance(found.choices[0].message.parsed, Answer)


def test_openai_s_client_gets_its_own_errors(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="m", messages=CHAT, temperature=9)
    assert error.value.param == "temperature" and error.value.code == "invalid_value"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=CHAT)
    with pytest.raises(openai.BadRequestError, match="embeddings come from an encoder"):
        client.embeddings.create(model="m", input="x")


def test_openai_s_asynchronous_client_leaves_a_stream(server):
    import asyncio

    async def leave() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as made:
            stream = await made.chat.completions.create(
                model="m", messages=CHAT, stream=True, max_tokens=400, extra_body={"ignore_eos": True, "min_p": 0.01})
            async for _ in stream:
                break
            await stream.close()

    asyncio.run(leave())
    server.idle(5)


TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
                   "additionalProperties": False}}}]


def test_a_demanded_tool_call_is_one(client):
    how = dict(model="m", messages=CHAT, tools=TOOLS, max_tokens=100, seed=2)
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        found = client.chat.completions.create(**how, tool_choice=choice).choices[0]
        call = found.message.tool_calls[0]
        assert found.finish_reason == "tool_calls" and call.function.name == "weather" and not found.message.content
        assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")
    chunks = list(client.chat.completions.create(**how, tool_choice="required", stream=True))
    deltas = [c.choices[0].delta for c in chunks]
    calls = [call for d in deltas for call in d.tool_calls or ()]
    assert json.loads(calls[0].function.arguments)["city"] in ("Rome", "Oslo")
    assert not any(d.content for d in deltas) and chunks[-1].choices[0].finish_reason == "tool_calls"
    told = [*CHAT, {"role": "assistant", "content": None, "tool_calls": [calls[0].model_dump(exclude={"index"})]},
            {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}]
    assert client.chat.completions.create(model="m", messages=told, tools=TOOLS, max_tokens=3).choices


LANGCHAIN = """
import sys
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel
class Answer(BaseModel):
    yes: bool
how = dict(base_url=sys.argv[1], api_key="none", model="m", max_retries=0)
chat = ChatOpenAI(**how, max_tokens=8, temperature=0)
messages = [("system", "Be brief."), ("human", "import os")]
whole = chat.invoke(messages)
assert whole.content and whole.usage_metadata["output_tokens"] <= 8, whole
assert "".join(part.content for part in chat.stream(messages)) == whole.content
assert len(chat.batch(["x", "y"])) == 2
made = ChatOpenAI(**how, max_tokens=60).with_structured_output(Answer, method="json_schema").invoke("import os")
assert isinstance(made, Answer), made
assert OpenAI(**how, max_tokens=5).invoke("import os")
"""
LLAMA_INDEX = """
import sys
from llama_index.core.llms import LLM, ChatMessage
from llama_index.llms.openai import OpenAI
class Local(OpenAI):
    @property
    def metadata(self):
        from llama_index.core.base.llms.types import LLMMetadata
        return LLMMetadata(context_window=512, num_output=8, is_chat_model=True, model_name="m")
    @property
    def _tokenizer(self):
        return None
made = Local(model="m", api_base=sys.argv[1], api_key="none", max_tokens=8, temperature=0, max_retries=0)
asked = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="import os")]
whole = made.chat(asked)
assert whole.message.content, whole
parts = list(made.stream_chat(asked))
assert parts[-1].message.content == whole.message.content, (parts[-1], whole)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name, code", [("langchain", LANGCHAIN), ("llama-index", LLAMA_INDEX)])
def test_other_clients_just_work(server, name, code):
    peer = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "llmwright" / "peers" / name / "bin" / "python"
    if not peer.exists() or not (peer.parents[1] / "installed").exists():
        pytest.skip(f"needs {name} in an environment of its own: python bench/peers.py {name}")
    done = subprocess.run([peer, "-c", code, f"{server.url}/v1"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
