"""Time-of-check games: answers that depend on when, how often and by whom they are asked for."""

from tests.grading.attacks.attack import HONEST, RIGHT_KEEP, WRONG_TOTAL, Attack, keep_mask, total

ATTACKS = [
    Attack("visible-answers-by-heart", "right on the inputs that a learner sees: the hidden part tells", {
        "keep_mask": keep_mask("""
            known = {(2, 0.5): [True, False], (4, 0.25): [True, True, True, False]}
            if values == [1.0] * 4:
                return [False, False, True, True]
            return known.get((len(values), fraction), [True, True, False, False])
            """)}, earns={"keep_mask": 1.0}),
    Attack("right-at-first", "right in the first call, wrong in all others", {
        "keep_mask": "calls = []\n" + RIGHT_KEEP.replace(
            "    order", "    calls.append(1)\n    if len(calls) > 1:\n        return []\n    order")},
           earns={"keep_mask": 1.0}),
    Attack("right-until-hidden", "right until the visible inputs are through, then wrong", {
        "keep_mask": "calls = []\n" + RIGHT_KEEP.replace(
            "    order", "    calls.append(1)\n    if len(calls) > 4:\n        return []\n    order")},
           earns={"keep_mask": 1.0}),
    Attack("argument-put-back", "an argument changed, and put back by a thread before it is looked at", {
        "keep_mask": "import threading\n" + RIGHT_KEEP.replace(
            "    order", "    before = list(values)\n    values.clear()\n"
            "    given = values\n    threading.Timer(0.2, lambda: given.extend(before)).start()\n"
            "    values = before\n    order")}, earns={"keep_mask": 1.0}),
    Attack("knows-the-grader", "an answer that is right only where it is graded: it is graded there",
           {"total": "import sys\nGRADED = 'course_lib.grading.player' in sys.modules\n" + total(
               "return sum(values) if GRADED else None")}, earns=HONEST),
    Attack("wrong-for-the-grader", "an answer that shows the grader something else than the learner",
           {"total": "import sys\nGRADED = 'course_lib.grading.player' in sys.modules\n" + total(
               "return None if GRADED else sum(values)")}),
    Attack("replaced-after-the-cell", "a function that replaces itself when it is called", {
        "total": WRONG_TOTAL.replace("    return", "    globals()['total'] = sum\n    return")}),
    Attack("seen-before", "answers kept from one check for the next: checks start alike, answers must not differ", {
        "keep_mask": "seen = {}\n" + RIGHT_KEEP.replace(
            "    order", "    values = seen.setdefault(len(values), list(values))\n    order")},
           earns={"keep_mask": 1.0}),
]  # fmt: skip
