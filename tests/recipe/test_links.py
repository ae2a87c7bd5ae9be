from __future__ import annotations

import itertools

from biomistral.recipe import links

MODELS = "name: x\nmodels: {a: {path: o/m}, b: {path: o/n}}\n"


def _slerp(name: str, base: str, other: str) -> str:
    return f"{{name: {name}, method: slerp, base: {base}, models: [{{model: {other}}}], t: 0.5}}"


def test_every_entry_that_makes_a_model_is_found_with_its_path(parse, whole: str) -> None:
    recipe = parse(whole)
    assert [(path, entry.name) for path, entry in links.model_entries(recipe)] == [
        ("pretrain[0]", "medical"),
        ("merge[0]", "medical-slerp"),
        ("merge[1]", "medical-dare"),
        ("quantize[0]", "medical-awq"),
    ]


def test_models_used_are_base_and_sources_without_repeats(parse) -> None:
    recipe = parse(
        MODELS + "merge:\n"
        f"  - {_slerp('m', 'a', 'b')}\n"
        "  - {name: n, method: linear, models: [{model: b}, {model: a}, {model: b}]}\n"
        "quantize: [{name: q, method: bitsandbytes, bits: 4, model: m}]\n"
    )
    used = {entry.name: links.models_used(entry) for _, entry in links.model_entries(recipe)}
    assert used == {"m": ["a", "b"], "n": ["b", "a"], "q": ["m"]}


def test_the_only_corpus_needs_no_name(parse) -> None:
    one = parse("name: x\nmodels: {a: {path: o/m}}\ncorpus: {texts: t.txt}")
    assert links.corpus_named(one, None) is one.corpus[0]
    two = parse(
        "name: x\nmodels: {a: {path: o/m}}\n"
        "corpus: [{name: c, texts: t.txt}, {name: d, texts: t.txt}]"
    )
    assert links.corpus_named(two, None) is None
    assert links.corpus_named(two, "d") is two.corpus[1]
    assert links.corpus_named(two, "e") is None


# --- which tokenizer cuts a corpus ----------------------------------------------------------------

CORPUS = MODELS + "corpus: {texts: t.txt%s}\n"


def test_the_only_model_cuts(parse) -> None:
    recipe = parse("name: x\nmodels: {a: {path: o/m}}\ncorpus: {texts: t.txt}")
    assert links.tokenizer_model(recipe, recipe.corpus[0]) == "a"


def test_the_declared_model_behind_the_first_training_on_it_cuts(parse) -> None:
    recipe = parse(
        CORPUS % "" + f"merge: [{_slerp('m', 'b', 'a')}]\n"
        "pretrain: [{name: p, model: m}, {name: q, model: b}]\n"
    )
    assert links.tokenizer_model(recipe, recipe.corpus[0]) == "b", "p <- m <- its base b"


def test_the_named_model_cuts_and_is_followed_back(parse) -> None:
    recipe = parse(CORPUS % ", tokenizer: p" + "pretrain: [{name: p, model: b}]")
    assert links.tokenizer_model(recipe, recipe.corpus[0]) == "b"


def test_a_corpus_that_nothing_trains_on_must_say_which_of_two_cuts(problems) -> None:
    (said,) = problems(CORPUS % "")
    assert said.startswith("corpus[0].tokenizer: nothing says which tokenizer cuts 'corpus'; name")
    assert problems(CORPUS % ", tokenizer: a") == []


def test_a_misspelt_tokenizer_is_compared_with_the_models(problems) -> None:
    assert problems(CORPUS % ", tokenizer: aa") == [
        "corpus[0].tokenizer: there is no model 'aa'; did you mean \"a\"? (there is: a, b)"
    ]


def test_one_corpus_is_not_cut_for_two_declared_models(problems) -> None:
    trained = "pretrain: [{name: p, model: a}, {name: q, model: p}, {name: r, model: b}]"
    (said,) = problems(CORPUS % "" + trained)
    assert said == (
        "corpus[0].tokenizer: 'corpus' is cut by one tokenizer, and the models trained on it go "
        "back to different ones (p of a, q of a, r of b); give each its own corpus entry with its "
        "own tokenizer, or name the one they share here"
    )
    assert problems(CORPUS % ", tokenizer: a" + trained) == []
    assert problems(CORPUS % "" + trained.replace("model: b", "model: a")) == []


# --- what does not hang together ------------------------------------------------------------------


def test_one_unknown_model_is_one_problem(problems) -> None:
    said = problems(CORPUS % "" + "pretrain: [{name: p, model: aa}]")
    assert said == ["pretrain[0]: there is no model 'aa'; did you mean \"a\"? (there is: a, b, p)"]


def test_unknown_names_are_told_wherever_they_stand(problems) -> None:
    said = problems(
        MODELS + "corpus: {name: c, texts: t.txt, tokenizer: a}\n"
        "pretrain: [{name: p, model: a, corpus: cc}]\n"
        f"merge: [{_slerp('m', 'x1', 'x2')}]\n"
        "quantize: [{name: q, method: awq, model: m, corpus: d}]\n"
        "evaluate: {models: [a, zz], ensembles: [{name: e, models: [a, b]}]}\n"
    )
    assert [line.split(";")[0].split(" (")[0] for line in said] == [
        "merge[0]: there is no model 'x1'",
        "merge[0]: there is no model 'x2'",
        "pretrain[0].corpus: there is no corpus 'cc'",
        "quantize[0].corpus: there is no corpus 'd'",
        "evaluate.models: there is no model 'zz'",
        "evaluate.ensembles[0]: there is no evaluated model 'b'",
    ]


def test_a_corpus_to_choose_must_be_named(problems) -> None:
    none = problems(MODELS + "pretrain: [{name: p, model: a}]")
    assert none == ["pretrain[0].corpus: is missing, and there are 0 corpora to choose from"]
    two = problems(
        MODELS + "corpus: [{name: c, texts: t, tokenizer: a}, {name: d, texts: t, tokenizer: a}]\n"
        "quantize: [{name: q, method: awq, model: a}]"
    )
    assert two == ["quantize[0].corpus: is missing, and there are 2 corpora to choose from"]


def test_perplexity_is_measured_on_a_corpus_that_holds_something_out(problems) -> None:
    said = problems(
        MODELS + "corpus: [{name: c, texts: t, tokenizer: a},"
        " {name: d, texts: t, tokenizer: a, held_out_fraction: 0.1}]\n"
        "quantize: [{name: q, method: half, model: a, held_out: c},"
        " {name: r, method: half, model: a, held_out: d},"
        " {name: s, method: half, model: a, held_out: e}]"
    )
    assert [line.split(";")[0].split(" (")[0] for line in said] == [
        "quantize[0].held_out: the corpus 'c' holds nothing out",
        "quantize[2].held_out: there is no corpus 'e'",
    ]


def test_a_tokenizer_is_trained_on_corpora_that_are_there(problems) -> None:
    said = problems(
        "name: x\nmodels:\n  f:\n    architecture: {hidden_size: 8, intermediate_size: 8, "
        "num_hidden_layers: 1, num_attention_heads: 1, num_key_value_heads: 1}\n"
        "    tokenizer: {corpora: [d], vocabulary_size: 300}\n"
    )
    (sentence,) = said
    assert "models.f.tokenizer.corpora: there is no corpus 'd'" in sentence
    assert "(there is: none, the recipe declares no corpus)" in sentence


def test_a_name_used_twice_is_told_once(problems) -> None:
    said = problems(
        MODELS + "corpus: [{name: c, texts: t, tokenizer: a}, {name: c, texts: t, tokenizer: a}]\n"
        f"merge: [{_slerp('a', 'a', 'b')}, {_slerp('m', 'a', 'b')}]\n"
        "evaluate: {models: [a, b], ensembles: [{name: b, models: [a, b]}]}\n"
    )
    assert [line for line in said if "is used" in line] == [
        "the model name 'a' is used 2 times; names are unique",
        "the model name 'b' is used 2 times; names are unique",
        "the corpus name 'c' is used 2 times; names are unique",
    ]


def test_a_circle_is_told_once_with_its_way(problems) -> None:
    said = problems(
        MODELS + f"merge: [{_slerp('m', 'a', 'n')}, {_slerp('n', 'o', 'b')}, "
        f"{_slerp('o', 'b', 'm')}, {_slerp('p', 'm', 'a')}]"
    )
    assert said == ["models are made from each other in a circle: m <- n <- o <- m"]


def test_a_model_made_from_itself_is_a_circle(problems) -> None:
    said = problems(MODELS + f"merge: [{_slerp('m', 'm', 'a')}]")
    assert said == ["models are made from each other in a circle: m <- m"]


def test_a_long_chain_is_no_circle(problems) -> None:
    names = ["a", *(f"m{index}" for index in range(300))]
    chain = "".join(f"  - {_slerp(n, o, 'b')}\n" for o, n in itertools.pairwise(names))
    assert problems(MODELS + "merge:\n" + chain) == []


def test_a_corpus_kept_clear_of_the_benchmark_needs_an_evaluation(problems) -> None:
    text = (
        "name: x\nmodels: {a: {path: o/m}}\n"
        "corpus: {texts: t.txt, exclude_overlap_with: benchmark}\n"
    )
    assert any("exclude_overlap_with: there is no section evaluate" in p for p in problems(text))


# --- corpora beside the one that is trained on ----------------------------------------------------

THREE = (
    MODELS + "corpus: [{name: c, texts: t}, {name: d, texts: t}, "
    "{name: e, texts: t, held_out_fraction: 0.1}]\n"
)


def test_a_corpus_that_is_mixed_in_or_measured_is_cut_for_the_model_that_reads_it(parse) -> None:
    recipe = parse(
        THREE + "pretrain: [{name: p, model: b, corpus: c, mix: [{corpus: d, share: 0.1}], "
        "held_out: [e]}]"
    )
    assert [links.tokenizer_model(recipe, corpus) for corpus in recipe.corpus] == ["b", "b", "b"]


def test_further_corpora_that_are_not_there_or_there_already_are_named(problems) -> None:
    said = problems(
        THREE + "pretrain: [{name: p, model: b, corpus: c, mix: [{corpus: dd, share: 0.1}, "
        "{corpus: e, share: 0.1}, {corpus: e, share: 0.2}], held_out: [c, d]}]"
    )
    assert [sentence.split(" (")[0] for sentence in said] == [
        "pretrain[0].mix: 'e' is given twice; give it one share",
        "pretrain[0].mix: there is no corpus 'dd'; did you mean \"d\"?",
        "pretrain[0].held_out: 'c' is the corpus that is trained on already; leave it out",
        (
            "pretrain[0].held_out: the corpus 'd' holds nothing out; set its held_out_fraction, or "
            "leave this out"
        ),
    ]
