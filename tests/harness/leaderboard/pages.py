"""Reading a page back."""

from __future__ import annotations


def tables_of(page: str) -> dict[str, list[list[str]]]:
    """Rows of the first table below each heading, without head and rule."""
    found = {}
    for block in page.split("\n#")[1:]:
        heading, *lines = block.strip("# ").splitlines()
        rows = [line.strip("| ").split("|") for line in lines if line.startswith("|")][2:]
        found[heading] = [[cell.strip() for cell in row] for row in rows]
    return found


def section_of(page: str, heading: str) -> str:
    """From a heading to the next one of any level, or to the foot of the page."""
    return page.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0].split("\n---\n", 1)[0]
