"""Answer bank of `accepted_path`: what else is right, and what each wrong answer reveals."""


def right_by_all_paths(tokens, parents, choices):
    """Lists the path of every node, and takes the first of the longest that are right."""
    paths = []
    for node in range(len(tokens)):
        path = [node]
        while path[0] > 0:
            path.insert(0, parents[path[0]])
        if all(tokens[child] == choices[parent] for parent, child in zip(path, path[1:], strict=False)):
            paths.append(path)
    return max(paths, key=len)


def right_by_levels(tokens, parents, choices):
    """Goes down level by level with all right nodes, and back up from the first of the last level."""
    level = [0]
    while True:
        below = [n for n in range(1, len(tokens)) if parents[n] in level and tokens[n] == choices[parents[n]]]
        if not below:
            break
        level = below
    path = [level[0]]
    while path[0] > 0:
        path.insert(0, parents[path[0]])
    return path


def right_by_recursion(tokens, parents, choices):
    """Goes down from the root into all fitting children, and takes the longest way back."""

    def below(node):
        fitting = [n for n in range(1, len(tokens)) if parents[n] == node and tokens[n] == choices[node]]
        return [node, *max((below(n) for n in fitting), key=lambda path: (len(path), -path[-1]), default=[])]

    return below(0)


def wrong_first_fitting_child(tokens, parents, choices):
    """Takes the first child that fits, although a twin of it may lead further."""
    path = [0]
    for node in range(1, len(tokens)):
        if parents[node] == path[-1] and tokens[node] == choices[path[-1]]:
            path.append(node)
    return path


def wrong_own_choice(tokens, parents, choices):
    """Compares a node's token with the choice after itself, not after its parent."""
    best, paths = [0], {0: [0]}
    for node in range(1, len(tokens)):
        if parents[node] in paths and tokens[node] == choices[node]:
            paths[node] = [*paths[parents[node]], node]
            best = max(best, paths[node], key=len)
    return best


def wrong_without_the_root(tokens, parents, choices):
    """Leaves out the root, which has to be kept as well."""
    return right_by_all_paths(tokens, parents, choices)[1:]


def wrong_deepest_fitting_node(tokens, parents, choices):
    """Takes the deepest node that fits its parent, whether the parent is right or not."""
    best = [0]
    for node in range(1, len(tokens)):
        if tokens[node] == choices[parents[node]]:
            path = [node]
            while path[0] > 0:
                path.insert(0, parents[path[0]])
            best = max(best, path, key=len)
    return best


def wrong_goes_on_with_the_wrong_one(tokens, parents, choices):
    """Keeps the first wrong node as well, as if its token were the model's."""
    path = right_by_all_paths(tokens, parents, choices)
    below = [node for node in range(1, len(tokens)) if parents[node] == path[-1]]
    return path + below[:1]


def wrong_last_of_equals(tokens, parents, choices):
    """Takes the last of equally long paths."""
    best, paths = [0], {0: [0]}
    for node in range(1, len(tokens)):
        if parents[node] in paths and tokens[node] == choices[parents[node]]:
            paths[node] = [*paths[parents[node]], node]
            if len(paths[node]) >= len(best):
                best = paths[node]
    return best


def wrong_tokens(tokens, parents, choices):
    """Returns the tokens of the path, not the numbers of its nodes."""
    return [tokens[node] for node in right_by_all_paths(tokens, parents, choices)]


def wrong_node_before(tokens, parents, choices):
    """Compares a node's token with the choice after the node before it in the list, not after its parent."""
    best, paths = [0], {0: [0]}
    for node in range(1, len(tokens)):
        if parents[node] in paths and tokens[node] == choices[node - 1]:
            paths[node] = [*paths[parents[node]], node]
            best = max(best, paths[node], key=len)
    return best
