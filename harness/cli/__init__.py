"""The command line: one file per verb, each importing torch or Ray only when it has work for them."""
