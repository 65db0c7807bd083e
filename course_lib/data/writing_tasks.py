"""Requests to a chat model, by how much of the answer stands in them: copying, editing, quoting, plain questions.

They measure decoders that copy from a reference. Each kind is in two halves: one to choose settings with, one to
report. The texts are the course's own. They suit a small model: SmolLM2-135M does copy where it is asked to copy or to
edit (at least 70 % of its greedy answer stands in the request in runs of eight tokens and more), though it often
forgets the edit.
"""

from typing import NamedTuple

KINDS = ("copying", "editing", "quoting", "plain")


class WritingTask(NamedTuple):
    """One request.

    Attributes:
        name: for tables.
        kind: one of `KINDS`.
        instruction: what to do.
        source: the text to do it with; empty for a plain question.
    """

    name: str
    kind: str
    instruction: str
    source: str

    @property
    def request(self) -> str:
        """What the user says: the instruction, and below it the source."""
        return f"{self.instruction}\n\n{self.source}" if self.source else self.instruction


_LIBRARY = (
    "The library opens at nine in the morning and closes at six in the evening. On Saturdays it closes at one. "
    "Visitors may borrow up to five books for three weeks. A book can be kept longer if nobody else has asked for it. "
    "Lost books must be paid for."
)
_BREAD = (
    "Mix the flour, the salt and the yeast in a large bowl. Add the warm water and stir until no dry flour is left. "
    "Cover the bowl with a cloth and let the dough rest for twelve hours. Fold it four times, shape it into a ball and "
    "wait for another hour. Bake the bread in a hot iron pot with its lid on for thirty minutes, then without the lid "
    "for fifteen minutes more."
)
_OWLS = (
    "Barn owls hunt at night over open fields. Their hearing is so good that they can catch a mouse in complete "
    "darkness. The face of the owl is shaped like a dish and guides sound to the ears. One ear sits higher than the "
    "other, so the owl can tell whether a sound comes from above or from below. Soft feathers make its flight silent."
)
_GARDEN = (
    "Tomatoes need a lot of sun and a place that is sheltered from rain. Plant them half a metre apart, and tie each "
    "one to a stick. Water the soil and not the leaves, because wet leaves become ill. Remove the small shoots between "
    "the stem and the branches every week. The fruits are ripe when they come off easily."
)
_LAMP = (
    "Charge the battery fully before you use the lamp for the first time. A full charge takes about four hours, and "
    "the lamp then shines for ten hours at half power. The green light means that the battery is full, the red light "
    "that it is almost empty. Do not leave the lamp in a hot car. If the lamp will not be used for months, charge it "
    "once every season."
)
_RECTANGLE = """```python
class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

    def area(self):
        return self.width * self.height

    def perimeter(self):
        return 2 * (self.width + self.height)

    def scale(self, factor):
        self.width = self.width * factor
        self.height = self.height * factor
```"""
_WORDS = """```python
def count_words(path):
    counts = {}
    with open(path) as file:
        for line in file:
            for word in line.split():
                word = word.lower()
                counts[word] = counts.get(word, 0) + 1
    return counts

def print_counts(counts):
    for word in sorted(counts):
        print(word, counts[word])
```"""

_BRIDGE = (
    "The stone bridge over the river was built in 1743 by local masons. It has seven arches and is ninety metres long. "
    "A flood in 1862 carried two of the arches away, and they were replaced by wood. In 1910 the wooden part was "
    "rebuilt in stone. Today the bridge is closed to cars, and people meet on it in the evening."
)
_FERRY = (
    "The ferry to the island leaves from the old harbour every two hours. The first boat leaves at seven and the last "
    "one at nine in the evening. A ticket costs four euros, and children under six travel free of charge. Bicycles may "
    "be taken along if there is room. In strong wind the boat does not leave, and tickets are valid on the next day."
)
_MINUTES = (
    "The committee met on Tuesday in the town hall. Eleven members were present and two had sent their apologies. The "
    "treasurer reported that the roof of the school has been paid for. A new playground was discussed, but no decision "
    "was made. The next meeting will take place on the third of May at seven in the evening."
)
_LETTER = """Dear Ms Novak,

thank you for your order of 12 March. The two chairs and the table left our workshop this morning and will reach you \
on Thursday between eight and noon. The driver will call you half an hour before. Please check the parcels for damage \
before you sign.

Kind regards,
Maria Lindt"""
_STACK = """```python
class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("the stack is empty")
        return self.items.pop()

    def size(self):
        return len(self.items)
```"""
_ACCOUNT = """```python
class Account:
    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.balance = self.balance + amount

    def withdraw(self, amount):
        if amount > self.balance:
            raise ValueError("not enough money")
        self.balance = self.balance - amount
```"""


def _misspelt(text: str, **words: str) -> str:
    for right, wrong in words.items():
        text = text.replace(right, wrong)
    return text


_SPELLING = "Correct the spelling mistakes in this text:"
_COMMENTS = "Write this code again with a comment above each function:"

# (name, kind, instruction, source)
_CHOOSE = (
    ("library", "copying", "Repeat this text word for word:", _LIBRARY),
    ("bread", "copying", "Copy this text exactly:", _BREAD),
    ("lamp", "copying", "Write this text again without changing it:", _LAMP),
    ("tomatoes", "copying", "Repeat this:", _GARDEN),
    ("words", "copying", "Repeat this code exactly:", _WORDS),
    ("tomatoes, spelling", "editing", _SPELLING, _misspelt(_GARDEN, sheltered="sheltred", because="becuase")),
    ("lamp, spelling", "editing", _SPELLING, _misspelt(_LAMP, battery="batery", months="monhts")),
    ("library, other hours", "editing", "Change the closing time from six to seven and write it again:", _LIBRARY),
    ("rectangle, renamed", "editing", "Rename the class Rectangle to Box and write the whole code again:", _RECTANGLE),
    ("words, commented", "editing", _COMMENTS, _WORDS),
    ("owls, in short", "quoting", "Summarize this text and quote from it:", _OWLS),
    ("bread, in short", "quoting", "Give the most important points of this text:", _BREAD),
    ("lamp, one rule", "quoting", "What does the red light mean? Quote the sentence.", _LAMP),
    ("sky", "plain", "Why is the sky blue?", ""),
    ("cat", "plain", "Write a short story about a cat who finds a key.", ""),
    ("sleep", "plain", "Give three reasons why sleep is important.", ""),
    ("money", "plain", "Explain to a child what money is for.", ""),
)
_REPORT = (
    ("bridge", "copying", "Copy this text exactly:", _BRIDGE),
    ("ferry", "copying", "Repeat this text word for word:", _FERRY),
    ("minutes", "copying", "Repeat this text word for word:", _MINUTES),
    ("letter", "copying", "Write this letter again without changing it:", _LETTER),
    ("stack", "copying", "Repeat this code exactly:", _STACK),
    ("minutes, spelling", "editing", _SPELLING, _misspelt(_MINUTES, committee="comittee", discussed="discused")),
    ("letter, spelling", "editing", _SPELLING, _misspelt(_LETTER, order="oder", morning="mornning")),
    ("ferry, another price", "editing", "Change the price from four to five euros and write it again:", _FERRY),
    ("bridge, another year", "editing", "Change the year 1743 to 1748 and write the text again:", _BRIDGE),
    ("account, renamed", "editing", "Rename the class Account to Wallet and write the whole code again:", _ACCOUNT),
    ("stack, commented", "editing", _COMMENTS, _STACK),
    ("bridge, in short", "quoting", "Summarize this text and quote from it:", _BRIDGE),
    ("minutes, in short", "quoting", "Give the most important points of this text:", _MINUTES),
    ("ferry, one rule", "quoting", "Who travels for free? Quote the sentence.", _FERRY),
    ("language", "plain", "What is a good way to learn a new language?", ""),
    ("volcano", "plain", "How does a volcano form?", ""),
    ("bicycle", "plain", "What should I check before a long bicycle ride?", ""),
    ("friend", "plain", "Write a letter to a friend who has moved to another town.", ""),
)


def writing_tasks(part: str) -> list[WritingTask]:
    """The requests of one half, kind by kind. No source is in both halves.

    Args:
        part: "choose", to choose settings with, or "report".

    Raises:
        ValueError: there is no such part.
    """
    halves = {"choose": _CHOOSE, "report": _REPORT}
    if part not in halves:
        raise ValueError(f"part must be one of {', '.join(halves)}, got {part!r}")
    return [WritingTask(*task) for task in halves[part]]
