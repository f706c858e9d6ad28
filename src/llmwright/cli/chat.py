"""`llmwright chat MODEL`"""
