"""The preview command: examples token by token, under any loss masks."""
