"""The `hf-causal-video` command: one file per verb, imported when the verb is used."""
