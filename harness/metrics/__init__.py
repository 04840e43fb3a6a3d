"""What a number means: pure functions of truth and scores, checked against other libraries.

Apart because every result passes through here, and again when it is computed anew from stored predictions.
NumPy and SciPy alone: whoever reads a record years later needs no network to score it.
"""
