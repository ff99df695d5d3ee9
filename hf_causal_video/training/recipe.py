"""From a recipe and the command line to arguments, and back to a recipe that repeats the run.

`--config recipe.yaml` sets defaults, flags override them, and a key that nobody reads is an error rather than a
silent nothing. `--config` also takes the name of a recipe that ships with the package (`transtr_world`, ...).
"""

import difflib
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool

from hf_causal_video.training.arguments import CausalVideoTrainingArguments, DataArguments, ModelArguments
from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.utils.plugins import add_import_argument, import_modules

Recipe = dict[str, object]  # arguments of a run by name, as YAML holds them
Arguments = tuple[ModelArguments, DataArguments, CausalVideoTrainingArguments]
MAPPINGS = {
    "config_overrides",
    "dataset",
    "features",
    "text_features",
    "world",
    "relations",
    *TrainingArguments._VALID_DICT_FIELDS,
}
# Written even where they are the default, so that a later default cannot change a repeated run.
ALWAYS_WRITTEN = (
    "learning_rate",
    "text_encoder_learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "weight_decay",
    "decay_biases_and_norms",
    "max_grad_norm",
    "seed",
    "metric_for_best_model",
)
# Of one machine or one sitting; none of them changes a number.
NEVER_WRITTEN = {
    "output_dir",
    "resume",
    "use_cpu",
    "local_rank",
    "disable_tqdm",
    "log_level",
    "log_level_replica",
    "report_to",
    "run_name",
    "logging_steps",
    "logging_first_step",
    "logging_strategy",
    "save_total_limit",
    "hub_token",
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "ddp_backend",
}
EXAMPLES = """\
examples:
  the confounded world, no downloads, minutes on a CPU:
    python -m hf_causal_video.training --config transtr_world --output_dir outputs/world
  the published NExT-QA setting with your features and one number changed:
    accelerate launch scripts/train.py --config transtr_nextqa --learning_rate 2e-5 \\
        --features org/nextqa-features --output_dir outputs/nextqa
  go on after a kill, to the same numbers as if nothing had happened:
    accelerate launch scripts/train.py --config transtr_nextqa --output_dir outputs/nextqa --resume
  repeat a finished run:
    accelerate launch scripts/train.py --config outputs/nextqa/recipe.yaml --output_dir outputs/again
"""


class _HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Defaults behind each help text, and the examples as they are written."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error; plain YAML keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        require(not twice, "a key stands twice in a recipe", found=", ".join(twice), expected="each key once")
        return super().construct_mapping(node, deep)


class ConfigParser(HfArgumentParser):
    """The command line of a training run, under which a YAML recipe gives the defaults.

    Example:
        >>> argv = ["--config", "transtr_world", "--output_dir", "outputs/world", "--learning_rate", "1e-3"]
        >>> model, data, training = ConfigParser().parse(argv)
        >>> data.dataset, training.learning_rate
        ('world', 0.001)
    """

    def __init__(self):
        types: list[Any] = [ModelArguments, DataArguments, CausalVideoTrainingArguments]
        super().__init__(
            types,
            usage="accelerate launch scripts/train.py --config RECIPE --output_dir FOLDER [--argument value ...]",
            description="Train a causal video question answering model. Flags override the recipe.",
            epilog=EXAMPLES,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--config", help="A recipe: YAML file of the arguments below, or a packaged recipe's name.")
        add_import_argument(self)

    def parse(self, argv: Sequence[str] | None = None) -> Arguments:
        """Read the flags, and below them the recipe that `--config` names.

        Args:
            argv: arguments without the program's name; None takes the command line.

        Raises:
            CausalVideoError: an unknown flag or key, a value of the wrong kind, a recipe that cannot be read.
        """
        first = ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--config", action="append", default=[])
        add_import_argument(first)
        configs, flags = first.parse_known_args(sys.argv[1:] if argv is None else list(argv))
        fix = "merge them into one file"
        require(len(configs.config) <= 1, "two recipes", found=configs.config, expected="one --config", fix=fix)
        import_modules(configs.imports)
        for name in configs.config:
            self._set_defaults(name, read_recipe(name))
        try:
            parsed = self.parse_args_into_dataclasses(flags, return_remaining_strings=True, look_for_args_file=False)
        except (ValueError, TypeError, LookupError, OSError, ImportError, AttributeError) as error:
            if isinstance(error, CausalVideoError):
                raise
            raise CausalVideoError(  # what transformers' own arguments refuse
                "arguments of the run",
                found=" ".join(str(error).split())[:300],
                expected="arguments of --help",
                fix="correct the flag or key that it names",
            ) from error
        *arguments, _, unknown = parsed
        if unknown:
            raise self._unknown("unknown flags", [flag.removeprefix("--") for flag in unknown])
        model, data, training = arguments
        if data.dataset == "world":  # another seed is another world, unless the world has a seed of its own
            data.world = {"seed": training.seed, **data.world_options}
        return model, data, training

    def _set_defaults(self, name: str, values: Recipe) -> None:
        known = {
            action.dest: action
            for action in reversed(self._actions)
            if action.dest not in ("help", "config", "imports")
        }
        if unknown := [str(key) for key in values if key not in known]:
            raise self._unknown(f"unknown keys in recipe {name}", unknown)
        for key, value in values.items():
            action = known[key]
            what = f"a wrong kind of value for {key} in recipe {name}"
            require(
                _fits(key, value, action), what, found=repr(value), expected=f"what --{key} takes", fix="see --help"
            )
            # argparse converts a default only if it is text: so 1e-3, which is text in YAML, becomes a number too
            number = isinstance(value, int | float) and not isinstance(value, bool)
            action.default = str(value) if number else value
            action.required = False

    def _unknown(self, what: str, names: list[str]) -> CausalVideoError:
        known = [action.dest for action in self._actions]
        near = {match for name in names for match in difflib.get_close_matches(name, known, n=1)}
        return CausalVideoError(
            what,
            found=", ".join(names),
            expected="arguments of --help",
            fix=f"did you mean {', '.join(sorted(near))}?" if near else "see --help for all arguments",
        )


def _fits(key: str, value: object, action: Action) -> bool:
    if value is None:
        return action.default is None
    if isinstance(value, dict):
        return key in MAPPINGS
    if isinstance(value, list):
        return action.nargs == "+" and all(isinstance(entry, str | int | float) for entry in value)
    return isinstance(value, bool) == (action.type is string_to_bool) and action.nargs != "+"


def read_recipe(name: str) -> Recipe:
    """Read a recipe by file name, or by the name of one that ships with the package.

    Args:
        name: path of a YAML file, or a packaged recipe without its ending.

    Raises:
        CausalVideoError: an unknown recipe, or one that is not a YAML mapping.

    Example:
        >>> read_recipe("transtr_world")["dataset"]
        'world'
    """
    packaged = Path(str(files("hf_causal_video.training"))) / "recipes"
    path = Path(name) if Path(name).is_file() else packaged / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in packaged.glob("*.yaml")))
        raise CausalVideoError(
            "unknown recipe", found=name, expected=f"a YAML file, or one of {known}", fix="check the path"
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CausalVideoError(
            f"recipe {path} cannot be read", found=str(error), expected="YAML", fix="correct the line that it names"
        ) from error
    problem = type(values).__name__
    is_recipe = isinstance(values, dict)
    require(is_recipe, f"recipe {path} cannot be read", found=problem, expected="key: value lines", fix="see --help")
    return values


def resolved_recipe(model: ModelArguments, data: DataArguments, training: CausalVideoTrainingArguments) -> Recipe:
    """Return the arguments of a run as a recipe that repeats it: every number, nothing of the machine.

    Example:
        >>> model, data, training = ConfigParser().parse(["--config", "transtr_world", "--output_dir", "out"])
        >>> resolved_recipe(model, data, training)["learning_rate"]
        0.002
    """
    chosen = training.to_dict()
    usual = CausalVideoTrainingArguments(output_dir=training.output_dir, use_cpu=training.use_cpu).to_dict()
    kept = {key: value for key, value in chosen.items() if key in ALWAYS_WRITTEN or value != usual[key]}
    return {**asdict(model), **asdict(data), **{k: v for k, v in kept.items() if k not in NEVER_WRITTEN}}


def recipe_world(checkpoint: str | Path) -> dict[str, object] | None:
    """Options of the world that a checkpoint folder was trained in; None where its recipe says nothing of it."""
    recipe = Path(checkpoint) / "recipe.yaml"
    world = read_recipe(str(recipe)).get("world") if recipe.is_file() else None
    return world if isinstance(world, dict) else None
