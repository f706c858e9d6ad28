"""For the chat page: a browser, and a small server that speaks the protocol over real HTTP and can be told, by the first
word of a message, to be slow, busy, broken or hostile. The page itself comes from the real server's own function."""

import http.server
import json
import math
import re
import threading
import time

import pytest

from llmwright.serve.page import chat_page

MARKDOWN = """## Words and how to count them

A *word* is what stands between **spaces**; `str.split` finds them, and [the manual](https://docs.python.org/3/) says how.

1. Read the text.
2. Split it:
   - at spaces,
   - at line ends.
3. Count.

```python
def count(text: str) -> int:
    return len(text.split())  # <b>not bold</b>
```

| text | words |
|:-----|------:|
| `""` | 0 |
| *two words* | 2 |

> Nothing is as simple as counting, until one has to say what is counted.
"""

ANSWERS = {
    "hello": "Paris is the capital of France.",
    "markdown": MARKDOWN,
    "script": "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> "
    "[click](javascript:window.hacked=1) [data](data:text/html,x) [up](JaVaScRiPt:alert(1)) [ok](https://example.org/a_b) "
    "![picture](https://example.org/a.png)\n\n<svg onload='window.hacked=1'>\n\n[file](file:///etc/passwd) <https://example.org/b>",
    "fence": "Before\n\n```html\n<script>window.hacked = 1</script>\n\nand it never ends",
    "table": "| a |" + " b |" * 400 + "\n|" + "---|" * 401 + "\n" + "".join("|" + f" {i} |" * 401 + "\n" for i in range(40)),
    "long": "| a | b |\n|---|---|\n" + "".join(f"| {i} | row |\n" for i in range(6000)),
    "rtl": "שלום עולם, this is mixed.\n\nمرحبا بالعالم\n\n```\nif access \u202e// check\u2066 == admin:\n```\n",
    "zalgo": "H" + "\u0335\u0321\u0322\u0489" * 200 + "e comes" + "\u0301" * 3000,
    "plain": "All work and no play makes a dull page. " * 2500,
    "stars": "*a " * 33_000,
    "brackets": "[" * 100_000,
    "ticks": "".join("`" * n + " " for n in range(1, 440)),
    "quotes": "> " * 50_000,
    "lists": "".join(" " * (n % 40) + "- x\n" for n in range(4000)),
}


def tokens_of(text):
    """The text in pieces as a tokenizer would cut it: words with the space before them."""
    return re.findall(r"\s?\w+|\s?[^\w\s]+|\s", text)


class Stub(http.server.BaseHTTPRequestHandler):
    """One conversation partner: the last message's first word names what it does."""

    protocol_version = "HTTP/1.0"

    def log_message(self, *_):
        pass

    def reply(self, status, body, kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode() if isinstance(body, str) else json.dumps(body).encode())

    def refuse(self, status, message, **headers):
        self.reply(status, {"error": {"message": message, "type": "error", "param": None, "code": None}}, **headers)

    def allowed(self):
        return not self.server.key or self.headers["Authorization"] == f"Bearer {self.server.key}"

    def do_GET(self):
        if self.path == "/":
            html, headers = chat_page()
            self.reply(200, html, "text/html; charset=utf-8", **headers)
        elif self.path != "/v1/models":
            self.refuse(404, f"nothing at {self.path}")
        elif self.allowed():
            self.reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]})
        else:
            self.refuse(401, "no such key")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        word, *rest = body["messages"][-1]["content"].split()
        if not self.allowed():
            self.refuse(401, "no such key")
        elif word == "wrong":
            self.refuse(400, "temperature must be at most 2")
        elif word == "busy" and self.server.bodies.count(body) < 3:
            self.refuse(429, "the queue is full", **{"Retry-After": "1"})
        else:
            self.stream(body, word)

    def stream(self, body, word):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        text = ANSWERS.get(word, ANSWERS["hello"])
        pieces = tokens_of(text) if len(text) < 20_000 else [text[i : i + 400] for i in range(0, len(text), 400)]
        try:
            for n, piece in enumerate(pieces):
                self.send(piece, body, n)
                if word in ("slow", "cut") and n == 2:
                    if word == "cut":
                        return
                    while not self.server.gate.wait(0.05):
                        self.wfile.write(b": waiting\n\n")
                        self.wfile.flush()
                time.sleep({"paced": 0.2, "slow": 0.01}.get(word, 0))
            self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length" if word == "length" else "stop"}]})
            self.event({"choices": [], "usage": {"completion_tokens": len(pieces), "prompt_tokens": 5}})
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.server.left.append(word)

    def send(self, piece, body, n):
        choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
        if body.get("logprobs"):
            half = math.log(0.5)
            rivals = [{"token": piece, "logprob": half, "bytes": list(piece.encode())}] + [
                {"token": token, "logprob": math.log(p), "bytes": list(token.encode())} for token, p in ((" rival", 0.25), ("\n", 0.1))
            ]
            if n % 5 == 4:  # a token that was not among the likeliest
                rivals[0] = {"token": " other", "logprob": math.log(0.6), "bytes": list(b" other")}
                half = math.log(0.02)
            choice["logprobs"] = {"content": [{"token": piece, "logprob": half, "bytes": list(piece.encode()), "top_logprobs": rivals}]}
        self.event({"object": "chat.completion.chunk", "choices": [choice]})

    def event(self, data):
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()


@pytest.fixture
def stub():
    stub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    stub.daemon_threads = True
    stub.bodies, stub.left, stub.gate, stub.key, stub.models = [], [], threading.Event(), None, ["tiny-model"]
    threading.Thread(target=stub.serve_forever, args=(0.02,), daemon=True).start()
    yield stub
    stub.gate.set()
    stub.shutdown()
    stub.server_close()


def opened(browser, stub, **options):
    """The page in a browser of its own (nothing kept), noting what it asks for and complains about."""
    options = {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light", "reduced_motion": "reduce", **options}
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(15_000)
    page.requests, page.complaints = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.address = f"http://127.0.0.1:{stub.server_address[1]}/"
    page.goto(page.address)
    return page


@pytest.fixture
def page(browser, stub):
    page = opened(browser, stub)
    yield page
    page.context.close()


def say(page, text, done=True):
    page.fill("#ask", text)
    page.press("#ask", "Enter")
    if done:
        page.wait_for_selector("#send:text('Send')")


def shown(page):
    """The texts of the turns, from the top."""
    return [text.strip() for text in page.locator(".turn .said, .turn .text").all_inner_texts()]


def kept(page):
    """The conversations as the browser keeps them."""
    return page.evaluate("Object.keys(localStorage).filter(k => k.startsWith('llmwright-chat:')).map(k => JSON.parse(localStorage[k]))")


def asked(body):
    """The messages of a request as (role, text)."""
    return [(m["role"], m["content"]) for m in body["messages"]]
