"""What a data folder holds, and what is asked of it."""

from __future__ import annotations

import pytest

from biomistral.benchmark.catalogue import choose, files_of, read_catalogue
from biomistral.errors import InputError

OWN = "name: {name}\ntitle: T\nsource: invented\nlicence: CC0\n"
LINE = {"id": "1", "stem": "s", "choices": ["a", "b"], "gold": 1}


def names(files, root):
    return [(file.split, file.path.relative_to(root).as_posix()) for file in files]


def test_published_files_are_found_in_table_order(data):
    catalogue = read_catalogue(str(data))
    assert list(catalogue.tasks) == ["mmlu_anatomy", "medqa", "pubmedqa", "frenchmedmcqa"]
    assert names(catalogue.files["mmlu_anatomy", "en"], data) == [
        ("train", "mmlu/dev/anatomy_dev.csv"),
        ("validation", "mmlu/val/anatomy_val.csv"),
        ("test", "mmlu/test/anatomy_test.csv"),
    ]


def test_a_translation_is_never_taken_for_the_english_original(tmp_path):
    for folder in ("mmlu_arabic_x/test", "MMLUFrench/test"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "anatomy_test.csv").touch()
    assert list(read_catalogue(str(tmp_path)).files) == [("mmlu_anatomy", "ar")]


@pytest.mark.parametrize(
    ("path", "task"),
    [
        ("mmlu_medical/test/anatomy_test.csv", "mmlu_anatomy"),
        ("data/test/anatomy_test.csv", "mmlu_anatomy"),
        ("deep/below/mmlu/data/test/college_biology_test.csv", "mmlu_college_biology"),
        ("MedQA/data_clean/questions/US/4_options/phrases_no_exclude_test.jsonl", "medqa"),
        ("MedQA/data_clean/questions/US/test.jsonl", "medqa_5_options"),
        ("pubmedqa/data/test_set.json", "pubmedqa"),
        ("MedMCQA/dev.json", "medmcqa"),
        ("FrenchMedMCQA/corpus/test.json", "frenchmedmcqa"),
        ("Apollo/metadata/test/es.json", "headqa"),
        ("xmedbench/zh_medqa-mcmle.json", "medqa_mainland"),
    ],
)
def test_original_layouts_are_known(tmp_path, path, task):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    assert list(read_catalogue(str(tmp_path)).tasks) == [task]


def test_two_files_that_look_like_one_published_file_are_refused(tmp_path):
    for folder in ("a/mmlu/test", "b/mmlu/test"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "anatomy_test.csv").touch()
    with pytest.raises(InputError, match=r"a/mmlu.* and .*b/mmlu.*keep only one"):
        read_catalogue(str(tmp_path))


def test_links_are_followed_and_circles_end(tmp_path, data):
    (tmp_path / "linked").symlink_to(data)
    (tmp_path / "circle").symlink_to(tmp_path)
    assert "mmlu_anatomy" in read_catalogue(str(tmp_path)).tasks


def test_a_missing_folder_is_named():
    with pytest.raises(InputError, match="'nowhere': there is no such folder"):
        read_catalogue("nowhere")


def test_own_tasks_come_after_the_published_ones(tmp_path, write_own_task):
    write_own_task(tmp_path / "a", OWN.format(name="herbs"), {"de/test.jsonl": [LINE]})
    (tmp_path / "mmlu/test").mkdir(parents=True)
    (tmp_path / "mmlu/test/anatomy_test.csv").touch()
    catalogue = read_catalogue(str(tmp_path))
    assert list(catalogue.tasks) == ["mmlu_anatomy", "herbs"]
    assert catalogue.descriptions == {"herbs": {"a/task.yaml": tmp_path / "a" / "task.yaml"}}
    assert catalogue.tasks["herbs"].licence == "CC0"


def test_an_own_task_may_add_a_language_to_a_published_one_but_not_replace_one(
    tmp_path, write_own_task
):
    (tmp_path / "mmlu/test").mkdir(parents=True)
    (tmp_path / "mmlu/test/anatomy_test.csv").touch()
    write_own_task(tmp_path / "a", OWN.format(name="mmlu_anatomy"), {"de/test.jsonl": [LINE]})
    catalogue = read_catalogue(str(tmp_path))
    assert catalogue.languages_of("mmlu_anatomy") == ["en", "de"]
    assert catalogue.tasks["mmlu_anatomy"].title == "Anatomy"
    assert catalogue.tasks["mmlu_anatomy"].note == "de: from invented (CC0)"
    write_own_task(tmp_path / "a", OWN.format(name="mmlu_anatomy"), {"en/test.jsonl": [LINE]})
    with pytest.raises(InputError, match="'mmlu_anatomy' is already there in en"):
        read_catalogue(str(tmp_path))


def test_two_own_tasks_with_one_name_are_refused(tmp_path, write_own_task):
    for folder in "ab":
        write_own_task(tmp_path / folder, OWN.format(name="herbs"), {"en/test.jsonl": [LINE]})
    with pytest.raises(InputError, match=r"'herbs' is also in .*a name must be unique"):
        read_catalogue(str(tmp_path))


def test_all_takes_what_is_there_and_lists_what_is_absent(data):
    choice = choose(read_catalogue(str(data)), "all", ["fr", "en", "fr"])
    assert choice.languages == {
        "mmlu_anatomy": ["en"],
        "medqa": ["en"],
        "pubmedqa": ["en"],
        "frenchmedmcqa": ["fr"],
    }
    assert choice.absent == ["mmlu_anatomy/fr", "medqa/fr", "pubmedqa/fr", "frenchmedmcqa/en"]


def test_named_tasks_keep_the_order_asked_for(data):
    choice = choose(read_catalogue(str(data)), ["pubmedqa", "mmlu_anatomy"], ["en", "ar"])
    assert choice.languages == {"pubmedqa": ["en"], "mmlu_anatomy": ["en", "ar"]}


@pytest.mark.parametrize(
    ("tasks", "languages", "message"),
    [
        (["medmcqa"], ["en"], r"task medmcqa: no test file in .*looked for:\n.*medmcqa\*/dev.json"),
        (["medkqa"], ["en"], "task 'medkqa': there is no such.*did you mean \"medqa\""),
        ("all", ["en", "ru"], "language ru: none of the tasks.*they are in ar, en, fr"),
        (["medqa"], ["ar"], "language ar: none of the tasks has questions in it .medqa.*in en"),
        ("all", ["xx"], "language 'xx': not one of"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_where_it_was_looked_for(
    data, tasks, languages, message
):
    with pytest.raises(InputError, match=f"(?s){message}"):
        choose(read_catalogue(str(data)), tasks, languages)


def test_a_folder_without_any_task_is_an_error_with_all_patterns(tmp_path):
    with pytest.raises(InputError, match=r"(?s)none of the published.*pubmedqa.*medqa_mainland"):
        choose(read_catalogue(str(tmp_path)), "all", ["en"])


def test_english_files_come_along_for_a_language_without_examples(tmp_path, write_own_task):
    files = {"en/test.jsonl": [LINE], "en/train.jsonl": [LINE], "fr/test.jsonl": [LINE]}
    root = write_own_task(tmp_path / "a", OWN.format(name="herbs"), files)
    found = names(files_of(read_catalogue(str(tmp_path)), "herbs", ["fr"]), root)
    assert sorted(path for _, path in found) == ["en/test.jsonl", "en/train.jsonl", "fr/test.jsonl"]


def test_english_files_stay_away_from_a_language_with_examples(data):
    files = files_of(read_catalogue(str(data)), "mmlu_anatomy", ["ar"])
    assert {file.language for file in files} == {"ar"}


def test_translations_add_languages_from_folders_of_their_own(tmp_path, write_own_task):
    data, french, german = (tmp_path / name for name in ("data", "fr", "de"))
    write_own_task(data / "herbs", OWN.format(name="herbs"), {"en/test.jsonl": [LINE]})
    write_own_task(french / "herbs", OWN.format(name="herbs"), {"fr/test.jsonl": [LINE]})
    write_own_task(german / "herbs", OWN.format(name="herbs"), {"de/test.jsonl": [LINE]})
    catalogue = read_catalogue(str(data), (), [str(french), str(german)])
    assert catalogue.languages_of("herbs") == ["en", "fr", "de"]
    assert len(catalogue.descriptions["herbs"]) == 3
    with pytest.raises(InputError, match="'herbs' is already there in fr"):
        read_catalogue(str(data), (), [str(french), str(french)])
    with pytest.raises(InputError, match="holds no translated task"):
        read_catalogue(str(data), (), [str(tmp_path)])
