"""Fitting and training of elastic encoders."""
