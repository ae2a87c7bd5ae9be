from __future__ import annotations

from biomistral.reporting.run_tables import (
    Artefact,
    LogLine,
    corpus_tables,
    makings_of,
    parents_of,
    provenance_table,
    training_table,
    versions_table,
)
from biomistral.reporting.tables import DASH, Table


def rows(table: Table) -> dict[str, list[str]]:
    return {row.label: [cell.text for cell in row.cells] for row in table.rows}


def model(name: str, **settings: object) -> Artefact:
    return Artefact("model", name, {"fingerprint": name * 20, "settings": settings}, 1)


def test_counts_of_all_corpora_stand_side_by_side_and_absent_ones_are_dashes() -> None:
    a = {"counts": {"num_rows": 1200, "by_language": {"en": 5, "fr": 7}, "files": ["x"]}}
    b = {"counts": {"num_rows": 3, "padding_fraction": 0.25, "by_language": {"en": 1}}}
    totals, languages = corpus_tables(
        [Artefact("corpus", "a", a, 1), Artefact("corpus", "b", b, 1)]
    )
    assert rows(totals) == {"rows": ["1,200", "3"], "padding fraction": [DASH, "0.250"]}
    assert rows(languages) == {"French": ["7", DASH], "English": ["5", "1"]}


def test_totals_are_in_the_order_of_the_work_and_readable() -> None:
    counts = {"tokens": 9, "documents_kept": 2, "articles_read": 1, "documents_seen": 3, "odd": 4}
    values = {"counts": {**counts, "dropped": {"too_few_words": 1}}}
    totals, dropped = corpus_tables([Artefact("corpus", "a", values, 1)])
    wanted = ["files read", "documents seen", "documents kept", "tokens", "odd"]
    assert list(rows(totals)) == wanted
    assert rows(dropped) == {"too few words": ["1"]}


def test_no_duration_is_printed() -> None:
    counts = {"counts": {"seconds": 1.5, "tokens_per_second": 9, "rows": 1}}
    (table,) = corpus_tables([Artefact("corpus", "a", counts, 1)])
    assert rows(table) == {"rows": ["1"]}


def test_a_corpus_without_manifest_has_no_tables() -> None:
    assert corpus_tables([Artefact("corpus", "a", None, None)]) == []


def test_parents_are_read_from_settings_not_from_names() -> None:
    models = [
        model("base"),
        model("trained", model="base"),
        model("merged", base="base", models=[{"model": "trained"}]),
        model("stranger", model="not of this run"),
    ]
    assert parents_of(models) == {"trained": "base", "merged": "base"}


def test_a_merge_is_made_from_all_its_inputs() -> None:
    models = [
        model("base"),
        model("trained", model="base"),
        model("merged", base="base", models=[{"model": "trained"}, {"model": "elsewhere"}]),
    ]
    assert makings_of(models) == {"trained": ("base",), "merged": ("base", "trained")}


def test_inputs_are_named_where_they_are_known() -> None:
    child = Artefact(
        "model",
        "child",
        {
            "fingerprint": "f" * 64,
            "kind": "model",
            "inputs": {"base": "base" * 20, "corpus": "0123456789abcdef"},
            "deterministic": "kernels differ",
        },
        2048,
    )
    found = rows(provenance_table([model("base"), child, Artefact("model", "hub", None, None)]))
    assert found["child"] == [
        "model",
        "f" * 12,
        "base, corpus: 0123456789ab",
        "kernels differ",
        "2,048",
    ]
    assert found["hub"] == ["model", DASH, DASH, DASH, DASH]


def test_the_training_table_shows_both_ends_of_each_loss() -> None:
    log = [
        LogLine(1, 10, 3.0, 0.1, {}),
        LogLine(2, 20, 2.0, 0.1, {"pmc": 2.5}),
        LogLine(3, 30, None, None, {"pmc": 2.25}),
    ]
    found = rows(training_table({"m": log, "silent": []}))
    assert found["m"] == ["3", "30", "3.000", "2.000", "2.500", "2.250"]
    assert found["silent"] == [DASH] * 6


def test_differing_versions_are_all_shown() -> None:
    made = [
        Artefact("model", n, {"versions": {"torch": v}}, 1) for n, v in (("a", "1"), ("b", "2"))
    ]
    assert rows(versions_table(made)) == {"torch": ["1, 2"]}
