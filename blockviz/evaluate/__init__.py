"""From next-token losses to numbers about a model: perplexity and its error."""

from blockviz.evaluate.loss import next_token_nll
from blockviz.evaluate.perplexity import Perplexity, measure_perplexity

__all__ = ["Perplexity", "measure_perplexity", "next_token_nll"]
