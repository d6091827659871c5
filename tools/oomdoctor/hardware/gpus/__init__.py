"""The catalogue of cards, and cards that are made from what a machine says."""
