"""Writes models as GGUF files, which llama.cpp, Ollama and xllamacpp load."""
