"""docs/benchmarks.md has several authors: each writes its own section and leaves the others'
alone."""

BUDGETS = "budgets"


def marked(name: str, body: str) -> str:
    begin, end = marks(name)
    return f"{begin}\n{body.strip()}\n{end}\n"


def replaced(document: str, name: str, body: str) -> str:
    """The document with this section in place of the one it had, or at its end."""
    found = section(document, name)
    new = marked(name, body)
    if found is None:
        return f"{document.rstrip()}\n\n{new}" if document.strip() else new
    return document.replace(found.rstrip("\n"), new.rstrip("\n"))


def kept(old: str, new: str) -> str:
    """A new document by the author of what is outside of the sections, with the old one's."""
    for name in (BUDGETS,):
        if (found := section(old, name)) is not None:
            new = f"{new.rstrip()}\n\n{found}"
    return new


def section(document: str, name: str) -> str | None:
    """With its marks, to the end of the line."""
    begin, end = marks(name)
    start = document.find(begin)
    if start < 0:
        return None
    stop = document.find(end, start)
    if stop < 0:
        raise ValueError(f"the section {name} does not end")
    return document[start : stop + len(end)] + "\n"


def marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: written by Benchmarks/{name} -->", f"<!-- end of {name} -->"
