"""A trained extractive reader: the embedded backbone with span, yes, no and no-answer scores, without a GPU."""
