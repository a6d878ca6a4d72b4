"""Observers: metrics, traces and the request log. They watch and never touch."""
