"""A benchmark of medical vision-language pre-training on chest X-rays: the engine.

Where to look:

- vocabulary: `contracts`, `errors`; what there is and where: `registry`, `settings`
- one cell: `run` is the pipeline; around it `plan` (what was asked for), `weights` (which checkpoint),
  `account` (its record), `identity` (whether a record is still that of its cell)
- many cells: `grid` (which), `jobs` (done or to do), `matrix` (at what cost), `sweep` with `trial`, `tuning`,
  `searches` and `cluster` (how they run), `failures` (what did not work), `quarantine` (what is out of date)
- rooms: `data` (pictures and tables), `phantom` (synthetic ones), `pretrain` (methods to checkpoints),
  `evaluate` (checkpoints to predictions), `metrics` (predictions to numbers)
- after the runs: `records`, `grouping` (which belong together), `stats` and `comparison`, `leaderboard`,
  `differences` (why two differ), `bundle` (records for another machine)
- `cli`: one file per verb; `prepare` decodes ahead for one of them
- tools: `files`, `parallel`, `progress`, `memo`, `device`, `provenance`, `cost`

Which file may import which is a table in `tests/test_architecture.py`.
"""
