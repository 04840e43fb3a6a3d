"""From an encoder to predictions: one file per kind of task, and for each the `published` way beside it."""
