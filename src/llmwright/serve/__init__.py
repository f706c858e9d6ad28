"""The server: OpenAI's API, metrics and a page, in front of an engine in a process of its own."""
