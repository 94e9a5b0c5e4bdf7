"""Models behind OpenAI-compatible endpoints: the client, the journal of replies, prices and budgets."""
