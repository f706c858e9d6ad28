"""The chat page and the list of what the API has: pages that fetch nothing from elsewhere and run no script but their own."""

import base64
import hashlib
import html
import re
from pathlib import Path

PAGE = Path(__file__).parent / "page" / "index.html"
PLACEHOLDER = ('<!doctype html><html lang="en"><meta charset="utf-8"><title>llmwright</title><p>This is a language model '
               'server. Its API is under <code>/v1</code>; <a href="/docs">what it takes</a>.</html>')
STYLE = (":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
         "code,td:first-child{font-family:ui-monospace,monospace}table{border-collapse:collapse;width:100%}"
         "td{border-top:1px solid #8884;padding:.25rem .5rem;vertical-align:top}h2{margin-top:2rem}")


def chat_page() -> tuple[str, dict[str, str]]:
    """The page and its headers."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else PLACEHOLDER
    return text, headers(text)


def headers(text: str) -> dict[str, str]:
    """For a page: only the scripts and styles that are written in it count, and it talks to this server alone."""
    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.S)
        digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in found)
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    policy = (f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
              "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    return {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


def reference(schema: dict) -> tuple[str, dict[str, str]]:
    """A page for people, made of /openapi.json."""
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
             f"<title>llmwright: the API</title><style>{STYLE}</style><h1>The API</h1>"
             '<p>The same for machines: <a href="/openapi.json">/openapi.json</a>.</p>']
    for path, methods in schema["paths"].items():
        for method, entry in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
                         f"<p>{html.escape((entry.get('description') or entry.get('summary', '')).replace('`', ''))}</p>")
            content = entry.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            model = schema.get("components", {}).get("schemas", {}).get(content.get("$ref", "").rsplit("/", 1)[-1])
            if model:
                parts.append(_table(model))
    parts.append("<h2>What they are made of</h2>")
    for name, model in schema.get("components", {}).get("schemas", {}).items():
        if "properties" in model and not name.endswith(("Request", "ValidationError")):
            parts.append(f'<h3 id="{html.escape(name)}"><code>{html.escape(name)}</code></h3>{_table(model)}')
    text = "".join(parts) + "</html>"
    return text, headers(text)


def _table(model: dict) -> str:
    required = model.get("required", ())
    fields = sorted(model["properties"].items(), key=lambda field: field[0] not in required)
    return f"<table>{''.join(_row(name, field, name in required) for name, field in fields)}</table>"


def _row(name: str, field: dict, required: bool) -> str:
    default = "required" if required else f"default {field['default']}" if field.get("default") is not None else ""
    return f"<tr><td>{html.escape(name)}<td>{html.escape(_kind(field))}<td>{html.escape(default)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _kind(field: dict) -> str:
    if "$ref" in field:
        return field["$ref"].rsplit("/", 1)[-1]
    if "anyOf" in field:
        return " or ".join(_kind(form) for form in field["anyOf"] if form.get("type") != "null")
    if "enum" in field or "const" in field:
        return ", ".join(map(str, field.get("enum") or [field["const"]]))
    limits = [f"{sign} {_number(field[key])}" for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"),
                                                       ("exclusiveMaximum", "<")) if key in field]
    inner = f" of {_kind(field['items'])}" if "items" in field else ""
    return " ".join([field.get("type", "any") + inner, *limits])
