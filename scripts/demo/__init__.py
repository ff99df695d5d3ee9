"""The demo: from rendered films to answers with their evidence, in one command."""
