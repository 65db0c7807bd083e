"""Decoding: how a language model writes, and how it writes faster. No torch in the engine and what it needs."""
