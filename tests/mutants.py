"""The mutants: one change each of the package, which tests have to see.

METRIC_MUTANTS are met one by one by the check of their metric, in every run (test_mutations.py).
OTHERS lie in all rooms, drawn by seed among the lines that tests execute; run_mutants.py meets each
of both kinds with the tests that execute its line.
"""

from __future__ import annotations

from dataclasses import dataclass

from mutant_place import Mutant


@dataclass(frozen=True)
class MetricMutant:
    """What is wrong with a metric; `instead`: why no axis is flipped, and what is done."""

    metric: str
    kind: str
    change: Mutant
    instead: str = ""

    def __str__(self) -> str:
        return f"{self.metric}-{self.kind}"


def _of(
    metric: str, kind: str, room: str, symbol: str, node: str, nth: int, new: str, instead: str = ""
) -> MetricMutant:
    return MetricMutant(metric, kind, Mutant(room, symbol, node, nth, new), instead)


_SUMMED = "the words are summed up before it sees them; the last position counts too"
_ONE_SUMMED = "every entry is summed up; one axis is, and of the other the length is taken"

# fmt: off
METRIC_MUTANTS = (
    _of("ppl", "sign", "metrics", "MaskedPerplexity.number_and_error", "Name", 10, "-_"),
    _of("ppl", "axis", "metrics", "MaskedPerplexity.positions", "Attribute", 0,
        "torch.ones_like(_)", _SUMMED),
    _of("lds", "sign", "metrics", "_turn", "BinOp", 0, "1 + _.right"),
    _of("lds", "axis", "metrics", "_turn", "Call", 0, "_.func(_.args[0], _.args[1], dim=0)"),
    _of("norm", "sign", "metrics", "LogitNorm.per_position", "Call", 0, "-_"),
    _of("norm", "axis", "metrics", "LogitNorm.per_position", "Attribute", 2,
        "(_.value.logits - _.value.dense.logits).norm(dim=0)"),
    _of("ang", "sign", "metrics", "LogitAngle.per_position", "BinOp", 0, "_.left + _.right"),
    _of("ang", "axis", "metrics", "LogitAngle.per_position", "Call", 3, "_.func(dim=0)"),
    _of("kl", "sign", "metrics", "KullbackLeibler.per_position", "Call", 0, "-_"),
    _of("kl", "axis", "metrics", "_dot", "Call", 0, "_.func(_.args[0], _.args[1], dim=0)"),
    _of("js", "sign", "metrics", "JensenShannon.per_position", "Attribute", 3, "-_"),
    _of("js", "axis", "metrics", "_dot", "Call", 0, "_.func(_.args[0], _.args[1], dim=0)"),
    _of("bi", "sign", "metrics", "BlockInfluence.score", "BinOp", 0, "_.left + _.right"),
    _of("bi", "axis", "stats", "StreamCosine.per_position", "Call", 2, "_.func(dim=1)"),
    _of("rm", "sign", "stats", "RelativeSize.per_position", "BinOp", 0, "_.left - _.right"),
    _of("rm", "axis", "stats", "RelativeSize.per_position", "Call", 0, "_.func(dim=1)"),
    _of("ang_win", "sign", "stats", "mean_cosines", "Name", 30, "-_"),
    _of("ang_win", "axis", "stats", "mean_cosines", "Call", 3, "_.func(_.args[0], dim=1)"),
    _of("ang_win", "run one layer short", "metrics", "_Windows.window_scores", "BinOp", 2, "_ - 1"),
    _of("cos_win", "sign", "metrics", "WindowCosine.score", "BinOp", 1, "1 - _.right"),
    _of("cos_win", "axis", "stats/cosines", "_Running.end", "Compare", 1, "_.left == 'channels'"),
    _of("cos_win", "one layer up", "metrics", "_Windows.window_scores", "Subscript", 1,
        "_.value[_.slice.elts[0], _.slice.elts[1] - 1, _.slice.elts[1]]"),
    _of("tabp_ssn", "sign", "metrics", "_EarlyExitShift.shifts", "BinOp", 0, "_.left + _.right"),
    _of("tabp_ssn", "axis", "stats", "_Running._restricted", "Call", 4, "_.func(dim=0)"),
    _of("tabp_ddf", "sign", "metrics", "ShiftDirection.score", "Compare", 1, "_.left < 0"),
    _of("tabp_ddf", "axis", "stats", "_Running._restricted", "Call", 4, "_.func(dim=0)"),
    _of("taylor", "sign", "metrics", "Taylor.score", "Call", 3, "_.func.value"),
    _of("taylor", "axis", "metrics", "Taylor.score", "Name", 5,
        "_.flip(0)", "every entry is summed up; weights meet the gradients of other rows"),
    _of("mag", "sign", "metrics", "Magnitude.score", "Attribute", 2, "_.value.func"),
    _of("mag", "axis", "metrics", "Magnitude.score", "Attribute", 1,
        "_(dim=0).norm", _ONE_SUMMED),
    _of("cka", "sign", "metrics", "Similarity.score", "BinOp", 0, "1 + _.right"),
    _of("cka", "axis", "stats", "centred_gram", "Call", 3, "_.func(dim=1, keepdim=True)"),
    _of("shapley_loo", "sign", "metrics", "LeaveOneOut.score", "BinOp", 4, "_.right - _.left"),
    _of("shapley_loo", "axis", "metrics", "LeaveOneOut.positions", "Attribute", 0,
        "torch.ones_like(_)", _SUMMED),
    _of("shapley_perm", "sign", "metrics", "PermutationShapley.play", "BinOp", 0,
        "_.right - _.left"),
    _of("shapley_perm", "axis", "metrics", "PermutationShapley.play", "Subscript", 3,
        "_.value[_.slice.upper:]", "an order has one; it is walked from the wrong end"),
    _of("shapley_random", "sign", "metrics", "_difference", "BinOp", 0, "_.right - _.left"),
    _of("shapley_random", "axis", "metrics", "RandomSubsets.play", "Attribute", 3,
        "_.value.max", "windows are its only one; the worst stands for all"),
    _of("cvr", "sign", "metrics", "weight_scores", "UnaryOp", 0, "_.operand"),
    _of("cvr", "axis", "metrics", "weight_scores", "Constant", 2, "1"),
    _of("acc", "sign", "metrics", "TaskAccuracy.score", "Constant", 0, "False"),
    _of("acc", "axis", "metrics", "TaskAccuracy.score", "Name", 12,
        "_.cumsum(0)", "questions are its only one; each counts those in front of it too"),
)

OTHERS = (
    Mutant("bench", "_Page.toggle", "BinOp", 0, "_.left + _.right"),
    Mutant("bench", "_Site.__init__", "Call", 5, "_.args[0]"),
    Mutant("cli", "show_metric", "AugAssign", 0, "_.target -= _.value"),
    Mutant("cli", "cut_as_before", "If", 1, "if False:\n    _.body"),
    Mutant("cli", "correct", "Call", 11, "_.args[0]"),
    Mutant("cli", "search", "Try", 0, "_.body"),
    Mutant("compute_lock", "ComputeLock.give_way", "If", 0, "if False:\n    _.body"),
    Mutant("compute_lock", "steps", "Try", 0, "_.body"),
    Mutant("corrections", "_Mlp.__init__", "BinOp", 0, "_.left * _.right"),
    Mutant("corrections", "hadamard_base", "BinOp", 1, "_.left"),
    Mutant("corrections", "Sizes.mean_ratio", "Call", 0, "_.func(_.args[0], dim=0)"),
    Mutant("corrections", "_whole_layers", "If", 0, "if False:\n    _.body"),
    Mutant("corrections", "Schedule.rate", "Call", 0, "_.args[0]"),
    Mutant("corrections", "reading", "Try", 0, "_.body"),
    Mutant("corrections", "train", "If", 1, "if False:\n    _.body"),
    Mutant("data", "split_passages", "BinOp", 0, "_.left * _.right"),
    Mutant("data", "_runs", "Subscript", 0, "_.value"),
    Mutant("data", "_longest", "Call", 4, "_.func(dim=0)"),
    Mutant("data", "_check", "If", 1, "if False:\n    _.body"),
    Mutant("data", "own", "Call", 3, "_.func.value"),
    Mutant("engine", "SetRunner.__init__", "UnaryOp", 1, "_.operand"),
    Mutant("engine", "sample", "BinOp", 1, "_.left"),
    Mutant("engine", "SetMeter.values", "If", 0, "if False:\n    _.body"),
    Mutant("engine", "ReferenceRoad.chunks", "With", 0, "if True:\n    _.body"),
    Mutant("engine", "BatchReader.read", "Call", 8, "_.func.value"),
    Mutant("engine", "_Batch._known", "If", 0, "if False:\n    _.body"),
    Mutant("evaluate", "_share_stderr", "BinOp", 1, "_.left / _.right"),
    Mutant("evaluate", "next_tokens", "BinOp", 0, "_.left"),
    Mutant("evaluate", "read_early_exits", "Call", 32, "_.func(dim=0)"),
    Mutant("evaluate", "_options", "If", 0, "if False:\n    _.body"),
    Mutant("export", "_Folding.read", "BinOp", 1, "_.left / _.right"),
    Mutant("export", "MlpSlot._open_gate", "Attribute", 17, "_.value"),
    Mutant("export", "_Folding._embed", "If", 0, "if False:\n    _.body"),
    Mutant("export", "slot_of", "Compare", 4, "_.left >= _.comparators[0]"),
    Mutant("export", "whole_layers", "Call", 4, "_.args[0]"),
    Mutant("export", "_Folding._scale_norm", "If", 0, "if False:\n    _.body"),
    Mutant("job_view", "Pace.eta", "BinOp", 3, "_.left * _.right"),
    Mutant("jobs", "Jobs.close", "BinOp", 1, "_.left + _.right"),
    Mutant("jobs", "Jobs._check_room", "If", 1, "if False:\n    _.body"),
    Mutant("jobs", "Jobs._sweep", "Compare", 2, "_.left >= _.comparators[0]"),
    Mutant("memory", "_room", "BinOp", 1, "_.left * _.right"),
    Mutant("memory", "check_fits", "If", 0, "if False:\n    _.body"),
    Mutant("metrics", "LogitNorm.window_values", "BinOp", 0, "_.left / _.right"),
    Mutant("metrics", "LogitDisruption.remember", "Call", 0, "_.func(_.args[0], dim=0)"),
    Mutant("metrics", "RandomSubsets._sets", "If", 0, "if False:\n    _.body"),
    Mutant("models", "RepairedModel.n_added", "BinOp", 0, "_.left - _.right"),
    Mutant("models", "writer_weight", "Attribute", 0, "_.value"),
    Mutant("models", "prompt_ids", "If", 1, "if False:\n    _.body"),
    Mutant("models", "_stage_reached", "Call", 2, "_.args[0]"),
    Mutant("models", "convert", "Try", 0, "_.body"),
    Mutant("models", "_refuse_wrong", "Call", 6, "_.args[0]"),
    Mutant("models", "Pruned._built", "If", 1, "if False:\n    _.body"),
    Mutant("plots", "comparison_card", "BinOp", 9, "_.left / _.right"),
    Mutant("plots", "_stretch", "BinOp", 0, "_.left"),
    Mutant("plots", "_check", "If", 0, "if False:\n    _.body"),
    Mutant("plots", "mean_rise", "Compare", 2, "_.left >= _.comparators[0]"),
    Mutant("plots", "word_classes", "Call", 2, "_.func.value"),
    Mutant("plots", "fit_card", "If", 1, "if False:\n    _.body"),
    Mutant("rankings", "Surrogate.fitted", "BinOp", 3, "_.left + _.right"),
    Mutant("rankings", "verdicts", "BinOp", 0, "_.left"),
    Mutant("rankings", "_drawn", "Call", 3, "_.func(axis=0)"),
    Mutant("registry", "Registry.register", "If", 0, "if False:\n    _.body"),
    Mutant("search", "_exchanged", "BinOp", 0, "_.left - _.right"),
    Mutant("search", "Policy.search", "Call", 21, "_.func(axis=-1)"),
    Mutant("search", "_check_distances", "If", 0, "if False:\n    _.body"),
    Mutant("search", "race", "Compare", 0, "_.left <= _.comparators[0]"),
    Mutant("search", "_runs", "Call", 10, "_.args[0]"),
    Mutant("search", "greedy_step", "If", 0, "if False:\n    _.body"),
    Mutant("session", "archive", "BinOp", 0, "_.left * _.right"),
    Mutant("session", "evaluate_request", "BinOp", 4, "_.left"),
    Mutant("session", "Measured.values", "Call", 14, "_.func(axis=0)"),
    Mutant("session", "_Writing.events", "If", 0, "if False:\n    _.body"),
    Mutant("session", "first_difference", "Call", 3, "_.args[0]"),
    Mutant("session", "Work._export", "Try", 0, "_.body"),
    Mutant("session", "_path_of", "Call", 9, "_.func.value"),
    Mutant("session", "run_label", "If", 0, "if False:\n    _.body"),
    Mutant("session", "_Writing._shown", "Subscript", 0, "_.value"),
    Mutant("session", "Measured.means", "Call", 4, "_.func(axis=0)"),
    Mutant("session", "_taken_apart.own", "If", 0, "if False:\n    _.body"),
    Mutant("settings", "check_settings", "If", 1, "if False:\n    _.body"),
    Mutant("settings", "parse_method", "Call", 2, "_.func.value"),
    Mutant("sources", "gib", "BinOp", 0, "_.left * _.right"),
    Mutant("sources", "check_weights", "If", 0, "if False:\n    _.body"),
    Mutant("sources", "check_hub_id", "Compare", 1, "_.left < _.comparators[0]"),
    Mutant("sources", "_unpacked", "Try", 0, "_.body"),
    Mutant("stats", "mean_cosines", "BinOp", 0, "_.left - _.right"),
    Mutant("stats", "lens_number", "Call", 10, "_.func(_.args[0], dim=0)"),
    Mutant("stats", "_check_samples", "If", 0, "if False:\n    _.body"),
    Mutant("stats", "centred_gram", "Compare", 1, "_.left >= _.comparators[0]"),
    Mutant("store", "Store.put", "AugAssign", 0, "_.target -= _.value"),
    Mutant("store", "JsonFolder._path", "If", 0, "if False:\n    _.body"),
    Mutant("types", "Readout.distance", "BinOp", 0, "_.left + _.right"),
    Mutant("types", "Readout.log_sum_exp", "Call", 0, "_.func(dim=0)"),
    Mutant("types", "Lens._check_numbers", "If", 2, "if False:\n    _.body"),
    Mutant("types", "BlockId.__post_init__", "Compare", 0, "_.left <= _.comparators[0]"),
    Mutant("types", "TaskRow.__post_init__", "Call", 10, "_.func.value"),
    Mutant("ui", "whole", "If", 1, "if False:\n    _.body"),
    Mutant("ui", "usual_to_export", "Compare", 3, "_.left < _.comparators[0]"),
    Mutant("ui", "TourHandlers.begin", "With", 0, "if True:\n    _.body"),
    Mutant("ui", "pushed", "Call", 4, "_.func.value"),
    Mutant("ui", "LiveHandlers._measured", "If", 2, "if False:\n    _.body"),
    Mutant("ui", "_amount", "BinOp", 0, "_.left / _.right"),
    Mutant("ui", "real", "If", 0, "if False:\n    _.body"),
    Mutant("ui", "duration", "Call", 0, "_.args[0]"),
    Mutant("ui", "Turns.forget", "With", 0, "if True:\n    _.body"),
    Mutant("ui", "model_id", "Call", 0, "_.func.value"),
    Mutant("ui", "as_it_stands", "If", 0, "if False:\n    _.body"),
)
# fmt: on

MUTANTS = tuple(dict.fromkeys((*(mutant.change for mutant in METRIC_MUTANTS), *OTHERS)))
