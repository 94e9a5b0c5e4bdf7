"""From conversations to segments, each of one kind; and loss masks, which say which kinds are supervised."""
