"""The pipeline: the only place that knows the order of the steps.

from biomistral.pipeline import plan, run_steps
steps = plan(load_recipe(Path("recipes/miniature.yaml")), Path("runs/miniature"))
for outcome in run_steps(steps, Path("runs/miniature")):
    print(outcome.step.key, outcome.verdict.state, outcome.seconds)
"""

from biomistral.pipeline.costs import expected_costs
from biomistral.pipeline.plan import plan
from biomistral.pipeline.running import Outcome, run_steps, select
from biomistral.pipeline.steps import Step, Verdict, judge
from biomistral.pipeline.training_needs import training_needs

__all__ = [
    "Outcome",
    "Step",
    "Verdict",
    "expected_costs",
    "judge",
    "plan",
    "run_steps",
    "select",
    "training_needs",
]
