"""From segments to token ids and kinds: encoded once, cached on disk, with a ledger."""
