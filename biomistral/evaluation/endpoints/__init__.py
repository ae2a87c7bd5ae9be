"""Models behind an OpenAI-compatible endpoint, asked over HTTP."""
