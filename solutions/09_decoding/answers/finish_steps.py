"""Answer bank of `finish_steps`: what else is right, and what each wrong answer reveals."""


def _refuse(lengths, places):
    if places < 1 or any(length < 1 for length in lengths):
        raise ValueError("places and lengths must be at least 1")


def right_step_by_step(lengths, places):
    """Counts one step after the other."""
    _refuse(lengths, places)
    finished, left, following, step = [0] * len(lengths), {}, 0, 0
    while following < len(lengths) or left:
        while following < len(lengths) and len(left) < places:
            left[following] = lengths[following]
            following += 1
        step += 1
        for request in list(left):
            left[request] -= 1
            if not left[request]:
                finished[request] = step
                del left[request]
    return finished


def right_by_smallest(lengths, places):
    """Looks for the place that is free first among all places."""
    _refuse(lengths, places)
    busy, finished = [0] * places, []
    for length in lengths:
        place = busy.index(min(busy))
        busy[place] += length
        finished.append(busy[place])
    return finished


def wrong_static(lengths, places):
    """Waits until all answers of a batch are written before the next ones come in."""
    _refuse(lengths, places)
    finished, start = [], 0
    for first in range(0, len(lengths), places):
        batch = lengths[first : first + places]
        finished += [start + length for length in batch]
        start += max(batch)
    return finished


def wrong_in_turn(lengths, places):
    """Deals the requests out to the places in turn, whichever place is free first."""
    _refuse(lengths, places)
    busy, finished = [0] * places, []
    for number, length in enumerate(lengths):
        busy[number % places] += length
        finished.append(busy[number % places])
    return finished


def wrong_shortest_first(lengths, places):
    """Lets short answers overtake long ones."""
    _refuse(lengths, places)
    busy, finished = [0] * places, [0] * len(lengths)
    for number in sorted(range(len(lengths)), key=lambda each: lengths[each]):
        place = busy.index(min(busy))
        busy[place] += lengths[number]
        finished[number] = busy[place]
    return finished


def wrong_same_step(lengths, places):
    """Starts the next answer in the step in which the one before writes its last token."""
    _refuse(lengths, places)
    busy, finished = [0] * places, []
    for length in lengths:
        place = busy.index(min(busy))
        busy[place] += length - (1 if busy[place] else 0)
        finished.append(busy[place])
    return finished


def wrong_from_zero(lengths, places):
    """Counts steps from 0."""
    return [step - 1 for step in right_by_smallest(lengths, places)]


def wrong_all_at_once(lengths, places):
    """Starts everybody in step 1, however few places there are."""
    _refuse(lengths, places)
    return list(lengths)


def wrong_one_at_a_time(lengths, places):
    """Writes one answer after the other, as if there were one place."""
    _refuse(lengths, places)
    return [sum(lengths[: number + 1]) for number in range(len(lengths))]


def wrong_in_order_of_ending(lengths, places):
    """Lists the steps in the order in which answers end, not in the order of the requests."""
    return sorted(right_by_smallest(lengths, places))


def wrong_unchecked(lengths, places):
    """Takes an answer without tokens, and a server without places, for possible."""
    return right_by_smallest(lengths, places) if places > 0 and min(lengths, default=1) > 0 else list(lengths)


def wrong_last_free(lengths, places):
    """Lets the next one wait for the place that is free last, not for the one that is free first."""
    _refuse(lengths, places)
    busy, finished = [0] * places, []
    for length in lengths:
        place = busy.index(0) if 0 in busy else busy.index(max(busy))
        busy[place] += length
        finished.append(busy[place])
    return finished


def wrong_per_place(lengths, places):
    """Tells when each place is done, not when each answer is."""
    _refuse(lengths, places)
    busy = [0] * places
    for length in lengths:
        busy[busy.index(min(busy))] += length
    return busy


def wrong_first_token(lengths, places):
    """Tells the step of each answer's first token instead of its last."""
    return [step - length + 1 for step, length in zip(right_by_smallest(lengths, places), lengths)]
