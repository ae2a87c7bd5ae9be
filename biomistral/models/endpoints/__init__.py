"""Asking models behind OpenAI-compatible endpoints: HTTP, pace, cost, and replies that are kept."""
