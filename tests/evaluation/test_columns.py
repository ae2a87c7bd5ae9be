from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biomistral.errors import InputError
from biomistral.evaluation.columns import CellKey, check_same_questions, read_cells

PLANTS = CellKey("plants", "en", "letter", 3)


def test_a_file_is_cut_into_tables_of_seeds_by_questions(write_predictions, prediction):
    folder = write_predictions(
        "one",
        [
            prediction("q2", (-1.0, -2.0, -3.0), gold=2, seed=2),
            prediction("q1", (-4.0, -5.0), gold=1, seed=2),
            prediction("q1", (-6.0, -7.0), gold=1, seed=1),
            prediction("q1", (-0.5, -0.6), language="fr"),
            prediction("q2", (-8.0, -9.0, -9.5), gold=2, seed=1),
        ],
    )
    cells = read_cells(folder, "one")
    assert list(cells) == [PLANTS, CellKey("plants", "fr", "letter", 3)]
    cell = cells[PLANTS]
    assert cell.question_ids == ("q1", "q2")
    assert cell.seeds == (1, 2)
    assert cell.gold.tolist() == [1, 2]
    assert cell.num_choices.tolist() == [2, 3]
    infinite = -np.inf
    assert cell.logprobs.tolist() == [
        [[-6.0, -7.0, infinite], [-8.0, -9.0, -9.5]],
        [[-4.0, -5.0, infinite], [-1.0, -2.0, -3.0]],
    ]


def test_every_answer_of_a_large_file_is_in_its_place(write_predictions, random_predictions):
    predictions = random_predictions(3)
    cells = read_cells(write_predictions("one", predictions), "one")
    for p in predictions:
        cell = cells[CellKey(p.task, p.language, p.scoring, p.shots)]
        question = cell.question_ids.index(p.question_id)
        row = cell.logprobs[cell.seeds.index(p.seed), question]
        assert tuple(row[: len(p.logprobs)]) == p.logprobs
        assert cell.gold[question] == p.gold


def test_an_answer_that_is_there_twice_is_named(write_predictions, prediction):
    folder = write_predictions("one", [prediction("q1"), prediction("q1")])
    with pytest.raises(InputError, match=r"'one', plants.*'q1' has 2 answers with seed 1"):
        read_cells(folder, "one")


def test_an_answer_that_lacks_for_a_seed_is_named(write_predictions, prediction):
    folder = write_predictions(
        "one", [prediction("q1"), prediction("q2"), prediction("q1", seed=2)]
    )
    with pytest.raises(InputError, match="'q2' has 0 answers with seed 2"):
        read_cells(folder, "one")


def test_a_right_answer_that_changes_is_refused(write_predictions, prediction):
    folder = write_predictions("one", [prediction(gold=0), prediction(gold=1, seed=2)])
    with pytest.raises(InputError, match="right answer to question 'q1' changes with the seed"):
        read_cells(folder, "one")


def test_no_file_no_table_and_no_rows_are_explained(tmp_path, write_predictions):
    with pytest.raises(InputError, match=r"predictions.parquet: cannot be read as Parquet"):
        read_cells(tmp_path, "one")
    (tmp_path / "predictions.parquet").write_text("no table")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_cells(tmp_path, "one")
    with pytest.raises(InputError, match="is empty; evaluate 'one' again"):
        read_cells(write_predictions("one", []), "one")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question_id": "q3"}, "'two' lacks question 'q2' of plants"),
        ({"gold": 1}, "'one' and 'two' disagree on the right answer .* question 'q2'"),
        ({"logprobs": (-1.0, -2.0, -3.0)}, "the number of choices of question 'q2'"),
        ({"seed": 2}, r"has 0 answers with seed"),
        ({"language": "fr"}, "'two' lacks question 'q2' of plants"),
    ],
)
def test_models_with_other_questions_are_told_apart(
    write_predictions, prediction, changes, message
):
    one = write_predictions("one", [prediction("q1"), prediction("q2")])
    two = write_predictions(
        "two", [prediction("q1"), prediction(**{"question_id": "q2", **changes})]
    )
    with pytest.raises(InputError, match=message):
        check_same_questions({"one": read_cells(one, "one"), "two": read_cells(two, "two")})


def test_the_model_that_has_less_is_named_in_either_order(write_predictions, prediction):
    more = read_cells(write_predictions("more", [prediction("q1"), prediction("q2")]), "more")
    less = read_cells(write_predictions("less", [prediction("q1")]), "less")
    other = {PLANTS._replace(task="rivers"): next(iter(less.values())), **less}
    for cells in ({"more": more, "less": less}, {"less": less, "more": more}):
        with pytest.raises(InputError, match="'less' lacks question 'q2'"):
            check_same_questions(cells)
    with pytest.raises(InputError, match="'less' lacks question 'q1' and all others of rivers"):
        check_same_questions({"less": less, "other": other})


def test_other_seeds_are_named(write_predictions, prediction):
    one = read_cells(write_predictions("one", [prediction(), prediction(seed=2)]), "one")
    two = read_cells(write_predictions("two", [prediction()]), "two")
    with pytest.raises(InputError, match=r"'two' lacks question 'q1' .* with seed 2"):
        check_same_questions({"two": two, "one": one})


def with_columns(folder, **columns):
    path = folder / "predictions.parquet"
    table = pq.read_table(path)
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, values)
    pq.write_table(table, path)
    return folder


def test_orders_become_the_places_of_the_choices(write_predictions, prediction):
    folder = write_predictions(
        "one", [prediction("q1", (-1.0, -2.0, -3.0)), prediction("q2"), prediction("q3")]
    )
    orders = pa.array([[2, 0, 1], [1, 0], []], type=pa.list_(pa.int64()))
    cell = read_cells(with_columns(folder, order=orders), "one")[PLANTS]
    # choice 0 was shown second, choice 1 last, choice 2 first; the third question in its own order
    assert cell.places[0].tolist() == [[1, 2, 0], [1, 0, 2], [0, 1, 2]]


def test_top_tokens_become_places_of_letters(write_predictions, prediction):
    folder = write_predictions("one", [prediction(f"q{index}") for index in range(5)])
    cell = read_cells(with_columns(folder, top=pa.array(["A", " C", "The", "", "AB"])), "one")
    assert cell[PLANTS].tops.tolist() == [[0, 2, -1, -1, -1]]


def test_files_without_orders_and_tops_are_read(write_predictions, prediction):
    folder = write_predictions("one", [prediction()])
    path = folder / "predictions.parquet"
    table = pq.read_table(path)
    old = [name for name in table.column_names if name not in {"order", "top"}]
    pq.write_table(table.select(old), path)
    cell = read_cells(folder, "one")[PLANTS]
    assert cell.places is None
    assert cell.tops is None


def test_a_whole_cell_may_lack_where_that_is_allowed_but_no_question(write_predictions, prediction):
    def cells_of(name, *predictions):
        return read_cells(write_predictions(name, list(predictions)), name)

    plants, rivers = prediction(), prediction(task="rivers")
    cells = {"a": cells_of("a", plants), "b": cells_of("b", rivers), "c": cells_of("c", rivers)}
    check_same_questions(cells, partial=True)
    with pytest.raises(InputError, match="'b' lacks question 'q1' and all others of plants"):
        check_same_questions(cells)
    cells["c"] = cells_of("d", prediction("q7", task="rivers"))
    with pytest.raises(InputError, match="'c' lacks question 'q1' of rivers"):
        check_same_questions(cells, partial=True)
