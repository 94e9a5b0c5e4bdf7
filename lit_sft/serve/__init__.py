"""The serve command: models behind an HTTP server that speaks OpenAI's API."""
