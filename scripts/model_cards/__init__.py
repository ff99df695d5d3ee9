"""Writers of `model_cards/` and of the table of published numbers."""
