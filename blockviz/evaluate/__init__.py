"""From next-token losses to numbers about a model: perplexity, accuracy, and their error."""

from blockviz.evaluate.answers import ChoiceResult, RemovalResults, accuracy
from blockviz.evaluate.choices import check_questions, score_choices, score_removals
from blockviz.evaluate.early_exit import EarlyExits, read_early_exits
from blockviz.evaluate.loss import next_token_nll
from blockviz.evaluate.perplexity import Perplexity, measure_perplexity
from blockviz.evaluate.speed import Speed, measure_speed, speedup

__all__ = [
    "ChoiceResult",
    "EarlyExits",
    "Perplexity",
    "RemovalResults",
    "Speed",
    "accuracy",
    "check_questions",
    "measure_perplexity",
    "measure_speed",
    "next_token_nll",
    "read_early_exits",
    "score_choices",
    "score_removals",
    "speedup",
]
