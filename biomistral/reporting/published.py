"""What the makers of BioMistral published, as reference beside a run on the same tasks.

Facts from public files, never mixed with what was measured here: other weights, other prompts in
part, other shots. Only figures that could be read in such a file stand here.
"""

from __future__ import annotations

from biomistral.reporting.model_sections import Section
from biomistral.reporting.results import Results
from biomistral.reporting.tables import Column, Row, Table, number_cell

_SOURCE = "README of BioMistral/BioMistral, commit 4d1fa85; Labrak et al., arXiv 2402.10373"
TASKS = {
    "mmlu_clinical_knowledge": "Clinical KG",
    "mmlu_medical_genetics": "Genetics",
    "mmlu_anatomy": "Anatomy",
    "mmlu_professional_medicine": "Pro Med",
    "mmlu_college_biology": "Biology",
    "mmlu_college_medicine": "Coll Med",
    "medqa": "MedQA",
    "medqa_5_options": "MedQA 5",
    "pubmedqa": "PubMedQA",
    "medmcqa": "MedMCQA",
}
# Accuracy in %, fine-tuned on the training sets, 3-shot, mean over 3 seeds; the last is the average.
FINE_TUNED = {
    "BioMistral 7B": "59.9 64.0 56.5 60.4 59.0 54.7 50.6 42.8 77.5 48.1 57.3",
    "Mistral 7B Instruct": "62.9 57.0 55.6 59.4 62.5 57.2 42.0 40.9 75.7 46.1 55.9",
    "BioMistral 7B Ensemble": "62.8 62.7 57.5 63.5 64.3 55.7 50.6 43.6 77.5 48.8 58.7",
    "BioMistral 7B DARE": "62.3 67.0 55.8 61.4 66.9 58.0 51.1 45.2 77.7 48.7 59.4",
    "BioMistral 7B TIES": "60.1 65.0 58.5 60.5 60.4 56.5 49.5 43.2 77.5 48.1 57.9",
    "BioMistral 7B SLERP": "62.5 64.7 55.8 62.7 64.8 56.3 50.8 44.3 77.8 48.6 58.8",
    "MedAlpaca 7B": "53.1 58.0 54.1 58.8 58.1 48.6 40.1 33.7 73.6 37.0 51.5",
    "PMC-LLaMA 7B": "24.5 27.7 35.3 17.4 30.3 23.3 25.5 20.2 72.9 26.6 30.4",
    "MediTron-7B": "41.6 50.3 46.4 27.9 44.4 30.8 41.6 28.1 74.9 41.3 42.7",
    "BioMedGPT-LM-7B": "51.4 52.0 49.4 53.3 50.7 49.1 42.5 33.9 76.8 37.6 49.7",
    "GPT-3.5 Turbo 1106 (not fine-tuned)": "74.71 74.00 65.92 72.79 72.91 64.73 57.71 50.82 72.66 53.79 66.0",
}


def published_section(results: Results) -> Section:
    """Return the published figures if the run has questions of these tasks in English."""
    measured = {task.name for setting in results.settings if setting.language == "en"
                for task in results.tasks_of(results.main_group, setting)}  # fmt: skip
    shown = [name for name in TASKS if name in measured]
    if not shown:
        return Section("published", "")
    places = [list(TASKS).index(name) for name in shown]
    whole = len(shown) == len(TASKS)
    rows = []
    for model, figures in FINE_TUNED.items():
        numbers = [float(text) for text in figures.split()]
        cells = [number_cell(numbers[place]) for place in places]
        rows.append(Row(model, (*cells, number_cell(numbers[-1]) if whole else number_cell(None))))
    titles = [*(TASKS[name] for name in shown), "Average"]
    table = Table(
        id="published-fine-tuned",
        title="As published: fine-tuned on the training sets, 3-shot",
        head="Model",
        columns=tuple(Column(title) for title in titles),
        rows=tuple(rows),
        note=f"Accuracy in %, mean over three seeds. Source: {_SOURCE}.",
    )
    text = (
        "Figures of others, for reference only: none of them was measured here, and prompts, shots "
        "and test files may differ from this run's."
    )
    return Section("published", "Published figures", text, tables=[table])
