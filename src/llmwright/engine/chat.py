"""A conversation with a decoder: its template says what the model reads, and what was read once is kept.

Each turn is rendered whole. Of its tokens, those that the cache of keys and values begins with are not computed again.
"""
