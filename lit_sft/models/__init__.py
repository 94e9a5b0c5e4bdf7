"""Language models: weights, adapters, attention, loss, generation, saving."""
