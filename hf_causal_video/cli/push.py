"""`hf-causal-video push`: check a checkpoint and upload it to the Hub in one commit."""

from dataclasses import dataclass

from hf_causal_video.cli.options import argument, option

EXAMPLES = """examples:
  hf-causal-video push outputs/transtr org/transtr-nextqa --dry-run      # checks everything, uploads nothing
  hf-causal-video push outputs/transtr org/transtr-nextqa --private
  hf-causal-video push outputs/transtr org/transtr-nextqa --revision seed-1
  # adapters and heads alone, onto a base that is on the Hub; loads with AutoModel.from_pretrained("org/transtr-lora")
  hf-causal-video push outputs/transtr/adapter org/transtr-lora --base org/transtr-base
"""


@dataclass(kw_only=True)
class Options:
    """Check a checkpoint and upload it to the Hub in one commit."""

    folder: str = argument("folder of a training run, of a saved model with its processor, or of adapters")
    repository: str = argument("org/name on the Hub, created if absent")
    private: bool = option("make it private", False)
    revision: str | None = option("branch to write to, created if absent (default: main)", None)
    license: str = option("licence of the weights", "apache-2.0")
    base: str | None = option("of adapters: Hub id of the model they go onto (default: the one they name)", None)
    dry_run: bool = option("check everything, list the files, upload nothing", False)


def run(options: Options) -> None:
    """Push, or list what a push would upload."""
    from transformers.utils.logging import disable_progress_bar

    from hf_causal_video.hub.push import push_checkpoint

    disable_progress_bar()  # of reading weights; uploading keeps its own
    pushed = push_checkpoint(
        options.folder,
        options.repository,
        options.private,
        options.revision,
        options.license,
        options.base,
        dry_run=options.dry_run,
    )
    for name, size in sorted(pushed.files.items()):
        print(f"  {size:>12,}  {name}")
    for where, name in pushed.local.items():
        print(f"note: {where} names {name!r}, which only this machine has; train with Hub ids and others can follow")
    total = f"{len(pushed.files)} files, {sum(pushed.files.values()):,} bytes"
    print(f"{total}; checked, nothing uploaded" if pushed.url is None else f"{total}; in one commit: {pushed.url}")
