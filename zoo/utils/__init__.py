"""Utilities of the whole project: files, errors, paths, threads."""
