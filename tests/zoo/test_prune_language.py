import pytest
import torch

from course_lib.nets.llama import tiny_llama
from course_lib.zoo import prune_language
from course_lib.zoo.prune_language import DENSE, TABLE, measured, ways, write

TOKENS = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))


def test_table_is_written_row_by_row_and_read_back(tmp_path):
    model, table = tiny_llama(), tmp_path / "table.md"
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    write(model, TOKENS, TOKENS.flatten(), table)
    rows = measured(table)
    assert list(rows) == [DENSE, *ways()]
    assert all(value > 1 for value in rows.values())
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())


def test_rows_that_are_there_are_not_computed_again(tmp_path, monkeypatch):
    table = tmp_path / "table.md"
    write(tiny_llama(), TOKENS, TOKENS.flatten(), table)
    first = table.read_text()
    monkeypatch.setattr(prune_language, "perplexity", lambda *_: pytest.fail("measured again"))
    write(tiny_llama(), TOKENS, TOKENS.flatten(), table)
    assert table.read_text() == first
    lines = first.splitlines()
    table.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        write(tiny_llama(), TOKENS, TOKENS.flatten(), table)


def test_committed_table_is_whole_and_what_looks_at_the_inputs_beats_magnitude():
    rows = measured(TABLE)
    assert set(rows) == {DENSE, *ways()}
    for pattern in ("50 %", "2:4"):
        assert rows[pattern, "magnitude"] > 3 * max(rows[pattern, "Wanda"], rows[pattern, "SparseGPT"])
        assert min(rows[pattern, "Wanda"], rows[pattern, "SparseGPT"]) > rows[DENSE]
    assert all(rows["2:4", method] > rows["50 %", method] for method in ("magnitude", "Wanda", "SparseGPT"))
