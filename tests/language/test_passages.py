import pytest

from course_lib.data.documentation import documentation_test, passages


def test_passages_of_the_test_are_the_texts_of_its_file():
    test = documentation_test()
    blocks = passages("test").split("\n\n")
    assert len(blocks) == len(test.queries)
    assert all(block == f"{a} {b}" for block, a, b in zip(blocks, test.queries, test.documents, strict=True))
    assert len(passages("test")) > 30_000


def test_passages_to_calibrate_with_are_many_mixed_and_none_of_them_is_in_the_test():
    blocks, test = passages("calibration").split("\n\n"), documentation_test()
    assert len(blocks) > 500 and blocks != sorted(blocks)
    joined = "\n".join(blocks)
    assert not any(document in joined for document in test.documents)
    with pytest.raises(ValueError, match='part must be "test" or "calibration", got \'train\''):
        passages("train")
