"""Which names a piece of code binds, and which it needs from outside. Python's own symbol tables decide."""

import ast
import builtins
import symtable
from collections.abc import Iterator
from functools import lru_cache

_BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__", "get_ipython", "display"}


def bound_names(source: str) -> set[str]:
    """The names that running `source` as a cell defines: assignments, imports, functions, classes, loop variables."""
    return set(_names_of(source)[0])


def _bound(table: symtable.SymbolTable) -> set[str]:
    bound = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    declared = {name for inner in _inner(table) for name in _declared_global(inner)}
    return bound | declared


def free_names(source: str) -> set[str]:
    """The names that `source` looks up but neither defines itself nor finds among Python's builtins."""
    return set(_names_of(source)[1])


@lru_cache(maxsize=1000)  # a lesson's cells are asked for again with every exercise, a class's with every learner
def _names_of(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """The bound names, and the free ones."""
    table = symtable.symtable(source, "<cell>", "exec")
    bound = _bound(table)
    needed = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    for inner in _inner(table):
        needed |= {symbol.get_name() for symbol in inner.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    return frozenset(bound), frozenset(needed - bound - _BUILTINS)


def _inner(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _inner(child)


def _declared_global(table: symtable.SymbolTable) -> Iterator[str]:
    return (s.get_name() for s in table.get_symbols() if s.is_declared_global() and s.is_assigned())


def import_of(source: str, name: str) -> str | None:
    """The import statement of `source` that binds `name`, reduced to that name; None where there is none."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name.partition(".")[0]) == name:
                    node.names = [alias]
                    return ast.unparse(node)
    return None
