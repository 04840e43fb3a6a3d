"""From a folder on disk to the examples of a cell: tables, decoded pictures, splits, fractions, checks."""
