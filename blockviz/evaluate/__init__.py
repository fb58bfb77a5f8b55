"""From next-token losses to numbers about a model: perplexity, accuracy, and their error."""

from blockviz.evaluate.answers import ChoiceResult, RemovalResults, accuracy
from blockviz.evaluate.choices import score_choices, score_removals
from blockviz.evaluate.early_exit import EarlyExits, read_early_exits
from blockviz.evaluate.loss import next_token_nll
from blockviz.evaluate.perplexity import Perplexity, measure_perplexity

__all__ = [
    "ChoiceResult",
    "EarlyExits",
    "Perplexity",
    "RemovalResults",
    "accuracy",
    "measure_perplexity",
    "next_token_nll",
    "read_early_exits",
    "score_choices",
    "score_removals",
]
