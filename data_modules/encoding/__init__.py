"""From segments to token ids with the kind of every token; encoded once and cached on disk, with a ledger."""
