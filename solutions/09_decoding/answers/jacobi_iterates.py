"""Answer bank of `jacobi_iterates`: what else is right, and what each wrong answer reveals."""


def _refuse(prompt):
    if not prompt:
        raise ValueError("prompt must hold at least one token, got none")


def right_by_counting_passes(choose, prompt, guess):
    """Makes as many passes as there are tokens at most, and leaves early where nothing changes."""
    _refuse(prompt)
    blocks = [list(guess)]
    for _ in guess:
        choices = list(choose(list(prompt) + blocks[-1]))
        block = choices[len(prompt) - 1 : len(prompt) - 1 + len(guess)]
        if block == blocks[-1]:
            break
        blocks.append(block)
    return blocks


def right_by_recursion(choose, prompt, guess):
    """Makes one pass, and leaves the others to itself."""
    _refuse(prompt)
    block = [int(token) for token in choose([*prompt, *guess])][len(prompt) - 1 : len(prompt) + len(guess) - 1]
    return [list(guess)] if block == list(guess) else [list(guess), *right_by_recursion(choose, prompt, block)]


def wrong_choice_after_itself(choose, prompt, guess):
    """Replaces each token by the choice after itself, instead of the choice after those before it."""
    _refuse(prompt)
    blocks = [list(guess)]
    for _ in range(len(guess) + 2):
        block = list(choose([*prompt, *blocks[-1]]))[len(prompt) :]
        if block == blocks[-1]:
            break
        blocks.append(block)
    return blocks


def wrong_one_after_the_other(choose, prompt, guess):
    """Uses tokens that it has just made, so that a pass is greedy decoding with a call for each token."""
    _refuse(prompt)
    blocks, text = [list(guess)], list(prompt)
    for _ in guess:
        text.append(list(choose(text))[-1])
    if text[len(prompt) :] != blocks[0]:
        blocks.append(text[len(prompt) :])
    return blocks


def wrong_fixed_point_twice(choose, prompt, guess):
    """Adds the block of the last pass, too, which changed nothing."""
    blocks = right_by_counting_passes(choose, prompt, guess)
    return [*blocks, list(blocks[-1])]


def wrong_always_n_passes(choose, prompt, guess):
    """Makes a pass for each token, even where nothing changes any more."""
    _refuse(prompt)
    blocks = [list(guess)]
    for _ in guess:
        blocks.append(list(choose([*prompt, *blocks[-1]]))[len(prompt) - 1 : -1])
    return blocks


def wrong_without_the_guess(choose, prompt, guess):
    """Leaves the guess out of the list."""
    blocks = right_by_counting_passes(choose, prompt, guess)
    return blocks[1:] or blocks


def wrong_stops_a_pass_early(choose, prompt, guess):
    """Stops before the last token has been corrected: one pass fewer than tokens."""
    _refuse(prompt)
    blocks = [list(guess)]
    for _ in guess[1:]:
        block = list(choose([*prompt, *blocks[-1]]))[len(prompt) - 1 : -1]
        if block == blocks[-1]:
            break
        blocks.append(block)
    return blocks


def wrong_in_place(choose, prompt, guess):
    """Writes the corrections into the guess that it was given."""
    blocks = right_by_counting_passes(choose, prompt, guess)
    guess[:] = blocks[-1]
    return blocks


def wrong_unchecked(choose, prompt, guess):
    """Takes an empty prompt, after which there is no first choice."""
    if not prompt:
        return [list(guess)]
    return right_by_counting_passes(choose, prompt, guess)


def wrong_one_token_a_pass(choose, prompt, guess):
    """Corrects only the first wrong token in each pass, and leaves those behind it as they are."""
    _refuse(prompt)
    blocks = [list(guess)]
    for _ in guess:
        old = blocks[-1]
        new = list(choose([*prompt, *old]))[len(prompt) - 1 : -1]
        place = next((i for i in range(len(old)) if old[i] != new[i]), None)
        if place is None:
            break
        blocks.append([*old[:place], new[place], *old[place + 1 :]])
    return blocks
