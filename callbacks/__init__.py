"""Layer 3: what watches a run. No Python file imports it; configs name it."""
