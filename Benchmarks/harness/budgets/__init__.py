"""Weir and LiteLLM with the same budgets, requests and upstream, one after the other."""
