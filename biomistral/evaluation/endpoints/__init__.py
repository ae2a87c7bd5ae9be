"""Multiple-choice questions to models behind an OpenAI-compatible endpoint."""
