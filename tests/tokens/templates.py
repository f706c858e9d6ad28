"""Chat templates in the style of the families that people run."""

CHATML = """\
{%- if not messages or messages[0].role != 'system' -%}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif -%}
{% for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{% endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA3 = """\
{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- if messages[0]['role'] == 'system' %}
    {%- set ns.system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + (date_string or '26 Jul 2024') + '\\n\\n' }}
{%- if tools is not none and tools %}
    {{- 'You may call these functions:\\n\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- '\\n\\n' }}
    {%- endfor %}
{%- endif %}
{{- ns.system + '<|eot_id|>' }}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception('One tool call at a time!') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + call.name + '", "parameters": ' ~ (call.arguments | tojson) ~ '}<|eot_id|>' }}
    {%- elif message.role in ['tool', 'ipython'] %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools and loop.last %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.function.items() if key != "return" %}
                    {{- '"' + key + '": ' + (val | tojson if val is not string else '"' + val + '"') }}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {%- if message.tool_calls is defined %}
            {{- "[TOOL_CALLS] " + message.tool_calls | tojson + eos_token }}
        {%- else %}
            {{- " " + message["content"] + eos_token }}
        {%- endif %}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string + "}[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("Only user, assistant and tool roles are supported, and a system message before all!") }}
    {%- endif %}
{%- endfor %}
"""

# looks for its own marks in what was said, builds a special token from parts, and keeps thoughts out of the past
THINKS = """\
{%- macro turn(role, text) %}{{ '<|' ~ role ~ '|>' }}{{ text }}<|end|>{{ '\\n' }}{% endmacro -%}
{% for message in messages %}
{%- if message.role == 'user' and message.content.startswith('<answer>') %}{% continue %}{% endif -%}
{%- set content = message.content %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}
{% generation %}{{ turn(message.role, content) }}{% endgeneration %}
{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif -%}
{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}
"""

# family: template, special tokens with the flags that differ, first and last token of a text
FAMILIES = {
    "chatml": (CHATML, {"<|im_start|>": {}, "<|im_end|>": {}}, None, "<|im_end|>"),
    "llama3": (LLAMA3, {"<|begin_of_text|>": {}, "<|start_header_id|>": {}, "<|end_header_id|>": {}, "<|eot_id|>": {},
                        "<|end_of_text|>": {}}, "<|begin_of_text|>", "<|end_of_text|>"),
    "gemma": (GEMMA, {"<bos>": {}, "<eos>": {}, "<start_of_turn>": {}, "<end_of_turn>": {}}, "<bos>", "<eos>"),
    "mistral": (MISTRAL, {"<s>": {}, "</s>": {}, "[INST]": {}, "[/INST]": {}, "[TOOL_CALLS]": {},
                          "[AVAILABLE_TOOLS]": {}, "[/AVAILABLE_TOOLS]": {}, "[TOOL_RESULTS]": {},
                          "[/TOOL_RESULTS]": {}}, "<s>", "</s>"),
    "thinks": (THINKS, {"<|user|>": {"rstrip": True}, "<|assistant|>": {"rstrip": True}, "<|end|>": {"rstrip": True},
                        "<|system|>": {}}, None, "<|end|>"),
}

TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "The weather of a <town> & \"place\", später",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}}}]
CALL = {"role": "assistant", "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"town": "Köln"}}}]}
ASK = {"role": "user", "content": "  What is\n\n  this? 🙂 "}
ANSWER = {"role": "assistant", "content": "It is <b>that</b>. "}
CONVERSATIONS = {
    "one": [ASK],
    "three turns": [ASK, ANSWER, {"role": "user", "content": "And “你好”?\n"}],
    "system": [{"role": "system", "content": " Be brief. "}, ASK, ANSWER, ASK],
    "answered": [ASK, ANSWER],
    "thought": [ASK, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"}, ASK],
    "answer tag": [{"role": "user", "content": "<answer>no"}, ASK],
    "no content": [{"role": "user", "content": ""}],
    "tools": [ASK, CALL, {"role": "tool", "content": "{\"sun\": 1}"}, ANSWER, ASK],
    "user, user": [ASK, ASK],
}
