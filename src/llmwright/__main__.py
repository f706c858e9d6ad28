"""`python -m llmwright` is the `llmwright` command."""

from .cli import main

main()
