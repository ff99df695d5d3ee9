"""`hf-causal-video push`: check a checkpoint and upload it to the Hub in one commit."""

import argparse

EXAMPLES = """examples:
  hf-causal-video push outputs/transtr org/transtr-nextqa --dry-run      # checks everything, uploads nothing
  hf-causal-video push outputs/transtr org/transtr-nextqa --private
  hf-causal-video push outputs/transtr org/transtr-nextqa --revision seed-1
  # adapters and heads alone, onto a base that is on the Hub; loads with AutoModel.from_pretrained("org/transtr-lora")
  hf-causal-video push outputs/transtr/adapter org/transtr-lora --base org/transtr-base
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `hf-causal-video push`."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", help="folder of a training run, of a saved model with its processor, or of adapters")
    parser.add_argument("repository", help="org/name on the Hub, created if absent")
    parser.add_argument("--private", action="store_true", help="make it private")
    parser.add_argument("--revision", help="branch to write to, created if absent (default: main)")
    parser.add_argument("--license", default="apache-2.0", help="licence of the weights (default: apache-2.0)")
    parser.add_argument("--base", help="of adapters: Hub id of the model they go onto (default: the one they name)")
    parser.add_argument("--dry-run", action="store_true", help="check everything, list the files, upload nothing")


def run(args: argparse.Namespace) -> None:
    """Body of `hf-causal-video push`."""
    from transformers.utils.logging import disable_progress_bar

    from hf_causal_video.hub.push import push_checkpoint

    disable_progress_bar()  # of reading weights; uploading keeps its own
    pushed = push_checkpoint(
        args.folder, args.repository, args.private, args.revision, args.license, args.base, dry_run=args.dry_run
    )
    for name, size in sorted(pushed.files.items()):
        print(f"  {size:>12,}  {name}")
    for where, name in pushed.local.items():
        print(f"note: {where} names {name!r}, which only this machine has; train with Hub ids and others can follow")
    total = f"{len(pushed.files)} files, {sum(pushed.files.values()):,} bytes"
    print(f"{total}; checked, nothing uploaded" if pushed.url is None else f"{total}; in one commit: {pushed.url}")
