"""From conversations to segments, each of one kind; which kinds a loss mask supervises."""
