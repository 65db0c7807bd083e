"""Answer bank of `tree_mask`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(parents):
    for node, parent in enumerate(parents):
        if not -1 <= parent < node:
            raise ValueError(f"parents[{node}] must be from -1 to {node - 1}, got {parent}")


def right_by_walking_up(parents):
    """Walks from each node up to its root."""
    _refuse(parents)
    mask = torch.zeros(len(parents), len(parents), dtype=torch.bool)
    for node in range(len(parents)):
        above = node
        while above >= 0:
            mask[node, above] = True
            above = parents[above]
    return mask


def right_by_powers(parents):
    """Multiplies the matrix of parents with itself until no path is longer."""
    _refuse(parents)
    step = torch.eye(len(parents))
    for node, parent in enumerate(parents):
        if parent >= 0:
            step[node, parent] = 1
    reach = step.clone()
    for _ in parents:
        reach = ((reach @ step) > 0).float()
    return reach > 0


def wrong_causal(parents):
    """Lets each node look at all nodes before it, so that guesses of the same token see each other."""
    _refuse(parents)
    return torch.ones(len(parents), len(parents), dtype=torch.bool).tril()


def wrong_parent_alone(parents):
    """Looks at the parent and not at the parent's parents."""
    _refuse(parents)
    mask = torch.eye(len(parents), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node, parent] = True
    return mask


def wrong_not_itself(parents):
    """Leaves out the node itself, so that it does not know its own token."""
    return right_by_walking_up(parents) & ~torch.eye(len(parents), dtype=torch.bool)


def wrong_turned(parents):
    """Lets parents look at their children: rows and columns are exchanged."""
    return right_by_walking_up(parents).T


def wrong_root_is_the_last_node(parents):
    """Takes -1 for an index, Python's last row, so that nodes without a parent see another one."""
    _refuse(parents)
    mask = torch.eye(len(parents), dtype=torch.bool)
    for node, parent in enumerate(parents):
        mask[node] |= mask[parent] if node else mask[node]
    mask[0, -1] = True
    return mask


def wrong_all_under_node_0(parents):
    """Makes every node without a parent a child of node 0."""
    _refuse(parents)
    mask = torch.eye(len(parents), dtype=torch.bool)
    for node, parent in enumerate(parents):
        mask[node] |= mask[max(parent, 0)]
    return mask


def wrong_numbers(parents):
    """Returns 0 and -infinity to be added, where the contract asks for True and False."""
    return torch.zeros(len(parents), len(parents)).masked_fill(~right_by_walking_up(parents), float("-inf"))


def wrong_unchecked(parents):
    """Does not check that parents come before their children."""
    count = len(parents)
    mask = torch.eye(count, dtype=torch.bool)
    for node, parent in enumerate(parents):
        if 0 <= parent < count:
            mask[node] |= mask[parent]
    return mask


def wrong_by_depth(parents):
    """Lets a node look at all nodes of smaller depth, whether they are its ancestors or not."""
    _refuse(parents)
    depth = []
    for parent in parents:
        depth.append(depth[parent] + 1 if parent >= 0 else 0)
    depths = torch.tensor(depth)
    return (depths[None, :] < depths[:, None]) | torch.eye(len(parents), dtype=torch.bool)
