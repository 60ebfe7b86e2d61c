"""What each size costs: retrieval and answer metrics, significance, time and memory, reports."""
