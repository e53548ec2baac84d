"""Class names that differ only in case, blanks or Unicode form, and how they are merged."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..images.file_names import composed


def canonical(name: str) -> str:
    """Return a name as it is compared with others: composed, without outer or repeated blanks, in one case.

    >>> canonical(" Traffic  Light") == canonical("traffic light")
    True
    """
    return " ".join(composed(name).split()).casefold()


def similar_names(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of different names that mean the same, each sorted, in the order of their first names.

    >>> similar_names(["cat", "dog", "Cat", "dog "])
    [['Cat', 'cat'], ['dog', 'dog ']]
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(canonical(name), set()).add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def describe_similar(groups: Sequence[Sequence[str]]) -> str:
    """Format groups of names for a message: ``'Cat' and 'cat'; 'dog' and 'dog '``."""
    return "; ".join(" and ".join(map(repr, group)) for group in groups[:5]) + ("; …" if len(groups) > 5 else "")


def merged_names(names: Iterable[str]) -> dict[str, str]:
    """Return the name of the class that each name means: the first of its group in sorted order, without outer blanks.

    >>> merged_names(["cat", "dog ", "Cat"])
    {'cat': 'Cat', 'dog ': 'dog', 'Cat': 'Cat'}
    """
    names = list(names)
    first: dict[str, str] = {}
    for name in sorted(name.strip() for name in names):
        first.setdefault(canonical(name), name)
    return {name: first[canonical(name)] for name in names}


def merged_counts(counts: Mapping[str, int]) -> Counter[str]:
    """Return counts by name with those of similar names added up; see `merged_names`.

    >>> merged_counts({"cat": 3, "Cat": 2, "dog": 1})
    Counter({'Cat': 5, 'dog': 1})
    """
    means, merged = merged_names(counts), Counter[str]()
    for name, count in counts.items():
        merged[means[name]] += count
    return merged


def label_lookup(names: Sequence[str], merge: bool = False) -> Callable[[str], int | None]:
    """Return the function from a name as it is written to the number of its class; None: not a class.

    Args:
        names: Names of the classes; of two that are the same, the first counts.
        merge: Whether a name may differ from that of its class in case, blanks and Unicode form.
    """
    key = canonical if merge else str
    labels: dict[str, int] = {}
    for label, name in enumerate(names):
        labels.setdefault(key(name), label)
    return lambda name: labels.get(key(name))


def merged_classes(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the classes that numbered names mean, each with its first name, and the class of each number.

    >>> merged_classes(["cat", "dog", "Cat"])
    (['cat', 'dog'], [0, 1, 0])
    """
    first = {canonical(name): name for name in reversed(names)}
    classes = list(dict.fromkeys(first[canonical(name)] for name in names))
    return classes, [classes.index(first[canonical(name)]) for name in names]
