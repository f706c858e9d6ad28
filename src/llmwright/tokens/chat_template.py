"""A conversation as the text a chat model was trained on: the model's own template, in Jinja's language.

The template comes with the model: `chat_template.jinja`, or `chat_template` in tokenizer_config.json (a text, or a list
of named ones), or the same key of a GGUF file's metadata. It runs in Jinja's sandbox with the settings that
transformers renders with, so the text is the same; what it may cost is bounded, since it is a stranger's program.
"""
