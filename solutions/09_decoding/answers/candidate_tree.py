"""Answer bank of `candidate_tree`: what else is right, and what each wrong answer reveals."""


def right_by_searching(root, guesses, paths):
    """Looks for each parent in the list of paths itself."""
    every = [(), *map(tuple, paths)]
    tokens, parents = [root], [-1]
    for place, path in enumerate(every[1:], 1):
        if path[:-1] not in every[:place]:
            raise ValueError(f"paths must have {path[:-1]} before {path}")
        tokens.append(guesses[len(path) - 1][path[-1]])
        parents.append(every.index(path[:-1]))
    return tokens, parents


def wrong_without_the_root(root, guesses, paths):
    """Leaves out the root, so that the heads' first guesses follow nothing."""
    tokens, parents = right_by_searching(root, guesses, paths)
    return tokens[1:], [parent - 1 for parent in parents[1:]]


def wrong_parents_without_the_root(root, guesses, paths):
    """Numbers the paths from 0 and forgets that node 0 is the root."""
    tokens, parents = right_by_searching(root, guesses, paths)
    return tokens, [-1, *(parent - 1 if parent else 0 for parent in parents[1:])]


def wrong_head_by_the_last_number(root, guesses, paths):
    """Takes the path's last number for the head, and its length for the rank."""
    _, parents = right_by_searching(root, guesses, paths)
    tokens = [root]
    for path in paths:
        row = guesses[min(path[-1], len(guesses) - 1)]
        tokens.append(row[min(len(path) - 1, len(row) - 1)])
    return tokens, parents


def wrong_first_rank(root, guesses, paths):
    """Takes the path's first number as the rank for all heads."""
    _, parents = right_by_searching(root, guesses, paths)
    return [root, *(guesses[len(p) - 1][min(p[0], len(guesses[len(p) - 1]) - 1)] for p in paths)], parents


def wrong_chain(root, guesses, paths):
    """Lets each node follow the node before it."""
    tokens, _ = right_by_searching(root, guesses, paths)
    return tokens, list(range(-1, len(tokens) - 1))


def wrong_parent_by_token(root, guesses, paths):
    """Finds the parent by its token, which may stand in the tree several times."""
    tokens, parents = right_by_searching(root, guesses, paths)
    return tokens, [-1, *(tokens.index(tokens[parent]) for parent in parents[1:])]


def wrong_one_child_each(root, guesses, paths):
    """Hangs all guesses of a head under the first node of the level above."""
    tokens, _ = right_by_searching(root, guesses, paths)
    first = {}
    for number, path in enumerate(paths, 1):
        first.setdefault(len(path), number)
    return tokens, [-1, *(first.get(len(path) - 1, 0) for path in paths)]


def wrong_unchecked(root, guesses, paths):
    """Hangs a node whose parent is missing under the root."""
    tokens, parents, number = [root], [-1], {(): 0}
    for path in map(tuple, paths):
        number[path] = len(tokens)
        tokens.append(guesses[len(path) - 1][path[-1]])
        parents.append(number.get(path[:-1], 0))
    return tokens, parents


def wrong_drops_the_first_number(root, guesses, paths):
    """Drops the first number of a path to find its parent, not the last one."""
    tokens, _ = right_by_searching(root, guesses, paths)
    every = [(), *map(tuple, paths)]
    return tokens, [-1, *(every.index(path[1:]) if path[1:] in every else 0 for path in every[1:])]
