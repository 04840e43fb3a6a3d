"""Records to `leaderboard.md`. Pure: the same records give the same text everywhere, which CI checks."""

from harness.leaderboard.page import FOLDERS, build, difference

__all__ = ["FOLDERS", "build", "difference"]
